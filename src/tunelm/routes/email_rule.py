"""The rule `email`: a reply to a customer in set phrases, with the shop's decision filled in."""

from __future__ import annotations

from tunelm.scoring.email_metrics import split_note


def reply(message: str) -> str:
    r"""A reply from the note in the message alone; what the customer wrote is not read.

    The note's lines are `Customer:`, `Order:` (its number, and what was bought) or `Item:`,
    `Decision:` and `Sign as:`; a line that is not there is passed over in the reply.

    >>> print(reply("Hi\n---\nCustomer: Ann Lee\nDecision: sent on 3 May\nSign as: Jo"))
    Dear Ann Lee,
    <BLANKLINE>
    Thank you for your message. We are sorry for any trouble, and glad to help.
    <BLANKLINE>
    We have decided as follows: sent on 3 May.
    <BLANKLINE>
    If you have any questions, just reply to this e-mail.
    <BLANKLINE>
    Kind regards,
    Jo
    """
    note = dict[str, str]()
    for line in split_note(message)[1].splitlines():
        name, colon, value = line.partition(":")
        if colon and value.strip():
            note.setdefault(name.strip().lower(), value.strip())
    order, _, bought = note.get("order", "").partition(",")
    item = bought.strip() or note.get("item", "")
    about = f" about order {order}" * bool(order) + f" ({item})" * bool(item)
    decision = note.get("decision", "").rstrip(".")
    paragraphs = (
        f"Dear {note.get('customer', 'customer')},",
        f"Thank you for your message{about}. We are sorry for any trouble, and glad to help.",
        f"We have decided as follows: {decision}." if decision else "We are looking into it.",
        "If you have any questions, just reply to this e-mail.",
        "Kind regards,\n" + note.get("sign as", "Customer service").replace(", ", "\n"),
    )
    return "\n\n".join(paragraphs)
