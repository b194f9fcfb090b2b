"""The kinds of fault that one row can have, in its form or in its text."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["error", "warning"]


class Code(NamedTuple):
    """One kind of fault."""

    level: Level
    what: str
    why: str
    mend: str


_ORDER_WHY = "chat templates refuse other orders, or render them as something never served"
_STRAY_WHY = "the model learns to write it"

ROW_CODES: dict[str, Code] = {
    # --- the conversation -------------------------------------------------------------------
    "no-messages": Code(
        "error", "a conversation without turns", "there is nothing to learn", "Remove the row."
    ),
    "turn-not-object": Code(
        "error",
        "a turn that is no object",
        "it has neither role nor text",
        'Write each turn as {"role": ..., "content": ...}.',
    ),
    "missing-role": Code(
        "error",
        "a turn without a role",
        "nobody knows whose words are learned",
        'Give the turn a "role": system, user, assistant or tool.',
    ),
    "unknown-role": Code(
        "error",
        "a role that no chat template knows",
        "the turn is dropped or refused",
        "Use system, developer, user, assistant, tool or function.",
    ),
    "missing-content": Code(
        "error",
        "a turn without content",
        "it renders as nothing, or as the word None",
        'Give the turn a "content"; only an assistant\'s turn with tool calls may do without.',
    ),
    "content-type": Code(
        "error",
        "content that is neither a text nor a list of content parts",
        "it is rendered as Python writes it",
        'Make "content" a text, or a list of parts such as {"type": "text", "text": ...}.',
    ),
    "empty-question": Code(
        "error",
        "a user turn without text",
        "the model learns to answer unasked",
        "Write the question, or remove the row.",
    ),
    "empty-answer": Code(
        "error",
        "an answer without text",
        "the model learns to say nothing",
        "Write the answer, or remove the row.",
    ),
    "empty-system": Code(
        "warning",
        "a system turn without text",
        "some templates put their own default in its place",
        "Remove the turn.",
    ),
    "system-not-first": Code(
        "error",
        "a system or developer turn after the first turn",
        _ORDER_WHY,
        "Put it first, once.",
    ),
    "two-users": Code(
        "error",
        "two user turns in a row",
        _ORDER_WHY,
        "Join the two turns, or put the answer between them.",
    ),
    "two-assistants": Code(
        "error",
        "two assistant turns in a row",
        _ORDER_WHY,
        "Join the two turns, or put the question between them.",
    ),
    "first-not-user": Code(
        "error",
        "a conversation that no user began",
        _ORDER_WHY,
        "Begin with a user turn, or make the opening words part of the system turn.",
    ),
    "no-assistant": Code(
        "error",
        "a conversation without an assistant turn",
        "there is no answer to learn",
        "Add the answer, or remove the row.",
    ),
    "last-not-assistant": Code(
        "error",
        "a conversation whose last turn is not the assistant's",
        "the last turn is never learned, and the answer to it is missing",
        "Add the answer, or cut the row after its last answer.",
    ),
    "weight-value": Code(
        "error",
        "a weight that is not 0 or 1",
        "it is refused, or silently taken for 1",
        "Write 0 (not learned) or 1 (learned).",
    ),
    "weight-role": Code(
        "error",
        "a weight on a turn that is not the assistant's",
        "only the assistant's turns are learned",
        "Remove the weight.",
    ),
    "weight-all-zero": Code(
        "error",
        "weight 0 on every assistant turn",
        "the loss of the row falls on nothing",
        "Give one answer weight 1, or remove the row.",
    ),
    "answer-is-question": Code(
        "warning",
        "an answer that repeats the question",
        "the model learns to echo",
        "Write the answer, or remove the row.",
    ),
    "empty-text": Code(
        "error", "a text row without text", "there is nothing to learn", "Remove the row."
    ),
    # --- tools --------------------------------------------------------------------------------
    "tool-definition": Code(
        "error",
        "a tool that is not declared as a function with a valid name",
        "it cannot be called",
        'Write {"type": "function", "function": {"name": ..., "parameters": {...}}}; a name has'
        " up to 64 of a-z, A-Z, 0-9, _ and -.",
    ),
    "tool-call-malformed": Code(
        "error",
        "a tool call out of form",
        "it is refused, or learned in a form nobody can carry out",
        'Write {"id": ..., "type": "function", "function": {"name": ..., "arguments": "..."}} in'
        " an assistant's turn, each id once.",
    ),
    "tool-arguments": Code(
        "error",
        "arguments of a tool call that are no JSON object",
        "the model learns calls that cannot be read",
        'Write "arguments" as a JSON object in a text: "{\\"city\\": \\"Lima\\"}".',
    ),
    "tool-unknown": Code(
        "error",
        "a call of a tool that the row does not declare",
        "the model learns to call what is not there",
        'Declare it in the row\'s "tools", or mend the name.',
    ),
    "tool-call-unanswered": Code(
        "error",
        "a tool call without a tool's answer before the next turn",
        "the model learns to go on without the result",
        "Add a turn of role tool with the call's tool_call_id.",
    ),
    "tool-answer-unasked": Code(
        "error",
        "a tool's answer that no call asked for",
        "it is refused, or read as the answer to another call",
        "Give it the tool_call_id of a call in the assistant's turn before it, or remove it.",
    ),
    # --- preference pairs -----------------------------------------------------------------------
    "preference-missing": Code(
        "error",
        "a preference pair with one answer missing",
        "there is nothing to prefer it to",
        "Give both answers, or remove the row.",
    ),
    "preference-equal": Code(
        "error",
        "a preference pair with equal answers",
        "its loss is a constant: nothing is learned",
        "Make the answers differ, or remove the row.",
    ),
    "preference-role": Code(
        "error",
        "an answer of a preference pair that is not the assistant's",
        "it is refused, or other people's words are preferred",
        "Give both answers the role assistant.",
    ),
    "preference-prompt": Code(
        "error",
        "a preference pair whose prompt ends with the assistant",
        "both answers would then answer the assistant itself",
        "Move the last turn of the prompt into both answers, or add the user's turn.",
    ),
    # --- the text -------------------------------------------------------------------------------
    "special-token": Code(
        "error",
        "a marker of a chat template, or a special token, in the text",
        "it is read as a real turn or end: the model learns to stop or to change roles there",
        "Take it out of the text; the template writes it where it belongs.",
    ),
    "mojibake": Code(
        "error",
        "text that was decoded with the wrong encoding",
        _STRAY_WHY,
        "Read the source in its own encoding, or let tunelm data prepare mend it.",
    ),
    "replacement-character": Code(
        "error",
        "the character that stands for bytes nobody could decode",
        "the letters are lost, and the model learns to write the hole",
        "Read the source in its own encoding again.",
    ),
    "control-character": Code(
        "error",
        "a control character",
        _STRAY_WHY,
        "Remove it; tunelm data prepare does.",
    ),
    "lone-surrogate": Code(
        "error",
        "half of a character (a lone UTF-16 surrogate)",
        "it cannot be written as UTF-8: training stops there",
        "Write the whole character, or remove it.",
    ),
    "invisible-character": Code(
        "warning",
        "a character without width, or one that turns the writing direction",
        "it splits words for the tokenizer, and nobody sees it",
        "Remove it; tunelm data prepare does.",
    ),
    "html": Code(
        "warning",
        "remains of HTML",
        _STRAY_WHY,
        "Convert the HTML to text, unless the task is about HTML.",
    ),
    "placeholder": Code(
        "warning",
        "a placeholder of a prompt template that was never filled in",
        "the model learns to answer with it, or not to look at what it stands for",
        "Fill it in, or remove the row.",
    ),
    # --- personal data --------------------------------------------------------------------------
    "personal-email": Code(
        "warning",
        "an e-mail address",
        "models repeat rare strings word for word to anyone who asks",
        "Replace it with a made-up one (at example.org).",
    ),
    "personal-phone": Code(
        "warning",
        "a telephone number",
        "models repeat rare strings word for word to anyone who asks",
        "Replace it with a made-up one (555-01xx in North America).",
    ),
    "personal-card": Code(
        "warning",
        "a payment card's number",
        "models repeat rare strings word for word to anyone who asks",
        "Remove it.",
    ),
    "personal-iban": Code(
        "warning",
        "a bank account's number (IBAN)",
        "models repeat rare strings word for word to anyone who asks",
        "Remove it.",
    ),
    "secret": Code(
        "warning",
        "a key, token or password",
        "who can ask the model can get the key",
        "Revoke it where it was issued, then remove it.",
    ),
}
