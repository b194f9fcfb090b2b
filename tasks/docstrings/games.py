"""Functions for games and puzzles."""

from collections import Counter


def dice_score(dice: list[int]) -> int:
    """Score a throw of dice: three equal ones count a hundred times their number.

    Args:
        dice: The numbers thrown.

    Returns:
        The best score of three or more equal dice, 0 where there are none.

    Examples:
        >>> dice_score([4, 2, 4, 4, 1])
        400
        >>> dice_score([1, 1, 2, 3, 5])
        0
    """
    counts = Counter(dice)
    return max((number * 100 for number, n in counts.items() if n >= 3), default=0)


def tic_tac_toe_winner(board: list[str]) -> str:
    """Find who has won at tic-tac-toe.

    Args:
        board: Three rows of three signs each: X, O or a dot.

    Returns:
        X or O, or a dot where nobody has three in a line.

    Examples:
        >>> tic_tac_toe_winner(["XO.", "OX.", "..X"])
        'X'
        >>> tic_tac_toe_winner(["XO.", "XO.", ".OX"])
        'O'
        >>> tic_tac_toe_winner(["XOX", "XOO", "OXX"])
        '.'
    """
    columns = ["".join(column) for column in zip(*board)]
    diagonals = [board[0][0] + board[1][1] + board[2][2], board[0][2] + board[1][1] + board[2][0]]
    for line in [*board, *columns, *diagonals]:
        if line in ("XXX", "OOO"):
            return line[0]
    return "."


def rock_paper_scissors(first: str, second: str) -> int:
    """Decide a round of rock, paper, scissors.

    Args:
        first: What the first player shows.
        second: What the second player shows.

    Returns:
        1 or 2 for the winner, 0 for a draw.

    Raises:
        ValueError: If somebody shows something else.

    Examples:
        >>> rock_paper_scissors("paper", "rock")
        1
        >>> rock_paper_scissors("rock", "paper")
        2
        >>> rock_paper_scissors("well", "rock")
        Traceback (most recent call last):
            ...
        ValueError: unknown sign
    """
    signs = ["rock", "paper", "scissors"]
    if first not in signs or second not in signs:
        raise ValueError("unknown sign")
    return (signs.index(first) - signs.index(second)) % 3


def blackjack_value(cards: list[str]) -> int:
    """Count a hand of cards at blackjack.

    Args:
        cards: Numbers from 2 to 10, or J, Q, K and A.

    Returns:
        The value; aces count 11 as long as that is not too much, and 1 otherwise.

    Examples:
        >>> blackjack_value(["A", "K"])
        21
        >>> blackjack_value(["A", "9", "5"])
        15
    """
    total = sum(11 if c == "A" else 10 if c in "JQK" else int(c) for c in cards)
    aces = cards.count("A")
    while total > 21 and aces > 0:
        total -= 10
        aces -= 1
    return total


def knight_moves(square: str) -> list[str]:
    """List the squares that a knight can jump to on an empty chessboard.

    Args:
        square: Its square, such as b1.

    Returns:
        The squares in alphabetical order.

    Examples:
        >>> knight_moves("a1")
        ['b3', 'c2']
        >>> knight_moves("h5")
        ['f4', 'f6', 'g3', 'g7']
    """
    column, row = "abcdefgh".index(square[0]), int(square[1])
    found = []
    for across, up in ((1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2)):
        if 0 <= column + across < 8 and 1 <= row + up <= 8:
            found.append("abcdefgh"[column + across] + str(row + up))
    return sorted(found)


def hangman(word: str, guessed: str) -> str:
    """Show a word as hangman does.

    Args:
        word: The secret word in lower case.
        guessed: The letters guessed so far, in either case.

    Returns:
        The word with a low line for each letter nobody has guessed.

    Examples:
        >>> hangman("butter", "TE")
        '__tte_'
    """
    return "".join(letter if letter in guessed.lower() else "_" for letter in word)


def mastermind(secret: str, guess: str) -> tuple[int, int]:
    """Rate a guess at Mastermind.

    Args:
        secret: The secret colours, a letter each.
        guess: As many guessed colours.

    Returns:
        How many are right at their place, and how many right at a wrong place.

    Examples:
        >>> mastermind("RGBY", "RBGG")
        (1, 2)
    """
    exact = sum(s == g for s, g in zip(secret, guess))
    common = sum((Counter(secret) & Counter(guess)).values())
    return exact, common - exact


def tennis_score(first, second):
    """Say the score of a game of tennis.

    Args:
        first: Points of the server.
        second: Points of the other player.

    Returns:
        The score as it is called out, with deuce and advantage.

    Examples:
        >>> tennis_score(2, 1)
        '30-15'
        >>> tennis_score(3, 3)
        'deuce'
        >>> tennis_score(4, 5)
        'advantage receiver'
        >>> tennis_score(6, 4)
        'game server'
    """
    leader = "server" if first > second else "receiver"
    if max(first, second) >= 4 and abs(first - second) >= 2:
        return f"game {leader}"
    if first >= 3 and second >= 3:
        return "deuce" if first == second else f"advantage {leader}"
    names = ["0", "15", "30", "40"]
    return f"{names[first]}-{names[second]}"


def bowling_spare(rolls: list[int]) -> int:
    """Score the first frame of bowling.

    Args:
        rolls: The pins of the first three rolls.

    Returns:
        The pins of the frame, with the next two rolls after a strike and the next after a spare.

    Examples:
        >>> bowling_spare([10, 3, 4])
        17
        >>> bowling_spare([6, 4, 5])
        15
        >>> bowling_spare([2, 3, 9])
        5
    """
    if rolls[0] == 10 or rolls[0] + rolls[1] == 10:
        return sum(rolls[:3])
    return rolls[0] + rolls[1]


def word_score(word: str) -> int:
    """Score a word by the rarity of its letters.

    Args:
        word: A word in lower case.

    Returns:
        8 for each q, x and z, 4 for each f, h, v, w and y, and 1 for every other letter.

    Examples:
        >>> word_score("quiz")
        18
        >>> word_score("why")
        12
    """
    total = 0
    for letter in word:
        if letter in "qxz":
            total += 8
        elif letter in "fhvwy":
            total += 4
        else:
            total += 1
    return total


def life_neighbours(alive: set[tuple[int, int]], cell: tuple[int, int]) -> int:
    """Count the living neighbours of a cell in the game of life.

    Args:
        alive: The places of all living cells.
        cell: The place to look at.

    Returns:
        A number from 0 to 8; the cell itself does not count.

    Examples:
        >>> life_neighbours({(0, 0), (1, 0), (5, 5), (2, 2)}, (1, 1))
        3
        >>> life_neighbours({(1, 1)}, (1, 1))
        0
    """
    x, y = cell
    around = [(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return sum(place in alive and place != cell for place in around)


def poker_pair(ranks: list[int]) -> str:
    """Name the equal cards of a poker hand.

    Args:
        ranks: The ranks of five cards.

    Returns:
        The best of four of a kind, full house, three of a kind, two pairs, one pair and nothing.

    Examples:
        >>> poker_pair([9, 4, 9, 4, 9])
        'full house'
        >>> poker_pair([2, 2, 7, 7, 5])
        'two pairs'
        >>> poker_pair([2, 3, 4, 5, 9])
        'nothing'
    """
    counts = sorted(Counter(ranks).values(), reverse=True)
    names = {
        (4, 1): "four of a kind",
        (3, 2): "full house",
        (3, 1): "three of a kind",
        (2, 2): "two pairs",
        (2, 1): "one pair",
    }
    return names.get(tuple(counts[:2]), "nothing")


def move_robot(commands: str) -> tuple[int, int]:
    """Follow a robot that begins at the origin and looks up.

    Args:
        commands: F for a step forward, L and R for a turn to the left or right.

    Returns:
        Where it ends, to the right and up.

    Raises:
        ValueError: If a command is unknown.

    Examples:
        >>> move_robot("FFRFLF")
        (1, 3)
        >>> move_robot("LF")
        (-1, 0)
        >>> move_robot("FX")
        Traceback (most recent call last):
            ...
        ValueError: unknown command X
    """
    x, y, dx, dy = 0, 0, 0, 1
    for command in commands:
        if command == "F":
            x, y = x + dx, y + dy
        elif command == "L":
            dx, dy = -dy, dx
        elif command == "R":
            dx, dy = dy, -dx
        else:
            raise ValueError(f"unknown command {command}")
    return x, y


def magic_square(rows: list[list[int]]) -> bool:
    """Tell whether a square of numbers is magic.

    Args:
        rows: As many rows as columns.

    Returns:
        True where all rows, columns and both diagonals have the same sum.

    Examples:
        >>> magic_square([[2, 7, 6], [9, 5, 1], [4, 3, 8]])
        True
        >>> magic_square([[1, 2], [2, 1]])
        False
    """
    size = len(rows)
    sums = {sum(row) for row in rows} | {sum(column) for column in zip(*rows)}
    sums.add(sum(rows[i][i] for i in range(size)))
    sums.add(sum(rows[i][size - 1 - i] for i in range(size)))
    return len(sums) == 1


def hanoi_moves(discs: int) -> int:
    """Count the moves that the towers of Hanoi take.

    Args:
        discs: How many discs there are.

    Returns:
        The smallest number of moves.

    Examples:
        >>> hanoi_moves(4)
        15
        >>> hanoi_moves(0)
        0
    """
    if discs == 0:
        return 0
    return 2 * hanoi_moves(discs - 1) + 1


def guess_hint(secret: int, guess: int) -> str:
    """Give a hint to somebody who guesses a number.

    Args:
        secret: The number to find.
        guess: The number guessed.

    Returns:
        right, close where it is at most 5 away, or too low or too high.

    Examples:
        >>> guess_hint(50, 45)
        'close'
        >>> guess_hint(50, 56)
        'too high'
        >>> guess_hint(50, 50)
        'right'
        >>> guess_hint(50, 44)
        'too low'
    """
    if guess == secret:
        return "right"
    if abs(guess - secret) <= 5:
        return "close"
    return "too low" if guess < secret else "too high"


def domino_chain(tiles: list[tuple[int, int]]) -> bool:
    """Tell whether domino tiles fit together as they lie.

    Args:
        tiles: The numbers of each tile, from left to right.

    Returns:
        True where neighbours touch with the same number.

    Examples:
        >>> domino_chain([(1, 4), (4, 4), (4, 6)])
        True
        >>> domino_chain([(1, 4), (5, 1)])
        False
    """
    return all(left[1] == right[0] for left, right in zip(tiles, tiles[1:]))


def yahtzee_straight(dice):
    """Find the longest straight among dice.

    Args:
        dice: The numbers thrown, in any order.

    Returns:
        How many numbers follow each other without a gap.

    Examples:
        >>> yahtzee_straight([3, 1, 4, 6, 2])
        4
        >>> yahtzee_straight([6, 6])
        1
    """
    best = 0
    for number in dice:
        length = 1
        while number + length in dice:
            length += 1
        best = max(best, length)
    return best


def elo_expected(rating: float, opponent: float) -> float:
    """Compute what a chess player is expected to score by the Elo formula.

    Args:
        rating: The player's rating.
        opponent: The other player's rating.

    Returns:
        A number from 0 for a sure loss to 1 for a sure win, with two decimals.

    Examples:
        >>> elo_expected(1800, 1600)
        0.76
        >>> elo_expected(1500, 1500)
        0.5
    """
    return round(1 / (1 + 10 ** ((opponent - rating) / 400)), 2)
