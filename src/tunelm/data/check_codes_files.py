"""The kinds of fault of reading, of a file as a whole, of length, and of a provider's rules."""

from __future__ import annotations

from tunelm.data.check_codes_rows import Code
from tunelm.data.read import CODES as READING


def _read(mend: str) -> Code:
    """A row that cannot be read; what it is, the code's name in `READING` says."""
    return Code("error", "", "the row cannot be read, so it would be missing", mend)


FILE_CODES: dict[str, Code] = {
    # --- reading -------------------------------------------------------------------------------
    "not-utf-8": _read("Save the file as UTF-8."),
    "nul-byte": _read("Remove it, or save the file as UTF-8."),
    "line-too-long": _read("Put each row on a line of its own, or leave the row out."),
    "not-json": _read("Mend the row where it breaks off; one JSON object a line."),
    "duplicate-key": _read("Leave one: readers differ in which one they keep."),
    "bad-number": _read("Write null, or leave the field out."),
    "nested-too-deep": _read("Flatten the row."),
    "not-an-object": _read("Write each row as an object with named fields."),
    "several-lists": _read("Put the rows into one list, or into files of their own."),
    "outside-rows": Code(
        "warning",
        READING["outside-rows"],
        "what stands there is not read",
        "Move it into the rows, if it is needed.",
    ),
    "ragged-row": _read("Give the row as many cells as there are columns."),
    "bad-quotes": _read('Put the cell in quotation marks, and write a " inside of it as "".'),
    "unclosed-quote": _read("Close it."),
    "column-left-out": Code(
        "warning",
        READING["column-left-out"],
        "nothing here learns from pictures or sound",
        "Leave it, if the text alone will do.",
    ),
    "column-not-found": _read("Mend the name given by --column or data.columns."),
    "column-clash": _read("Map the other field to another name."),
    "unknown-shape": _read("Name the fields: --column question=THEIRS --column answer=THEIRS."),
    "mixed-forms": _read("Write both as texts, or both as lists of turns."),
    "answers-not-a-list": _read('Write "answers" as a list of texts, or one "answer".'),
    "turns-not-a-list": _read("Write the conversation as a list of turns."),
    "not-text": _read("Write it as a text, in quotation marks."),
    "unreadable-document": Code(
        "error",
        READING["unreadable-document"],
        "its text is missing",
        "Save the document again, as text if need be, or take it out of the folder.",
    ),
    "not-a-document": Code(
        "warning", READING["not-a-document"], "its text is missing", "Take it out of the folder."
    ),
    "link-loop": Code(
        "warning",
        READING["link-loop"],
        "its documents would be read twice",
        "Nothing needs to be done; or remove the link.",
    ),
    # --- the whole file -------------------------------------------------------------------------
    "duplicate": Code(
        "error",
        "a row that stands in the file already",
        "it is learned twice, and may stand in both train and test",
        "Remove it; tunelm data prepare does.",
    ),
    "duplicate-text": Code(
        "warning",
        "a text row that stands in the file already",
        "it is learned by heart, and may stand in both train and test",
        "Remove it; tunelm data prepare does.",
    ),
    "near-duplicate": Code(
        "warning",
        "a row almost like an earlier one",
        "the split may put the two on both sides, and the test is then no test",
        "Remove one, or give both the same group; tunelm data prepare does.",
    ),
    "conflict": Code(
        "warning",
        "another answer to a question asked before",
        "the model learns a mixture, or either at random",
        "Keep the right answer; if both are right, give both rows the same group.",
    ),
    "identical-answers": Code(
        "warning",
        "the same answer in every row",
        "the model learns to say it whatever is asked",
        "Add rows with other answers.",
    ),
    "label-imbalance": Code(
        "warning",
        "a label (or answer) more than ten times as frequent as another",
        "the model learns to say the frequent one",
        "Add rows of the rare ones, or score by macro F1.",
    ),
    "validation-overlap": Code(
        "error",
        "a row of validation, dev or test that stands, exactly or almost, in train or dev too",
        "what is measured on it is then memory",
        "Remove the row from one of the two files.",
    ),
    "overlap": Code(
        "error",
        "a row that shares 13 words in a row, or almost everything, with another file",
        "if one of the two trains and the other tests, the test measures memory",
        "Remove the row from one of the two files.",
    ),
    # --- the length -----------------------------------------------------------------------------
    "over-long": Code(
        "error",
        "a prompt that alone takes all the tokens there are",
        "no token of the answer is left to learn",
        "Shorten the prompt, raise --max-length, or remove the row.",
    ),
    "cut-answer": Code(
        "error",
        "an answer that the length limit would cut off",
        "the model learns to stop in the middle, and never learns to end",
        "Shorten the row, raise --max-length, or remove the row.",
    ),
    "template": Code(
        "error",
        "a row that the model's chat template refuses or garbles",
        "it cannot be trained on as it would be served",
        "Use the roles and the order that the model's template knows.",
    ),
    # --- the provider ---------------------------------------------------------------------------
    "openai-not-jsonl": Code(
        "error",
        "a file that is not JSONL",
        "OpenAI takes one JSON object a line and nothing else",
        "Convert it: tunelm data prepare FILE --to messages --out DIR.",
    ),
    "openai-file-size": Code(
        "error",
        "a file of more than 512 MB",
        "the upload is refused",
        "Split it, or leave rows out.",
    ),
    "openai-shape": Code(
        "error",
        "a row in another form than the method takes",
        "the whole file is refused",
        'For supervised, {"messages": [...]}; for dpo, {"input": {"messages": [...]},'
        ' "preferred_output": [...], "non_preferred_output": [...]}.',
    ),
    "openai-key": Code(
        "error",
        "a field that a row must not have",
        "the whole file is refused",
        "Remove the field; a row has messages, tools, parallel_tool_calls and functions.",
    ),
    "openai-message-key": Code(
        "error",
        "a field that a message must not have",
        "the whole file is refused",
        "Remove the field; a message has role, content, name, weight, refusal, tool_calls,"
        " tool_call_id and function_call.",
    ),
    "openai-name": Code(
        "error",
        "a participant's name out of form",
        "the whole file is refused",
        "Use up to 64 of a-z, A-Z, 0-9, _ and -.",
    ),
    "openai-content": Code(
        "error",
        "a content part that its turn must not have",
        "the whole file is refused",
        "Use text parts; image_url stands in user turns of supervised files only, refusal in"
        " assistant turns.",
    ),
    "openai-parallel-tool-calls": Code(
        "error",
        "parallel_tool_calls that is not true or false, or stands without tools",
        "the whole file is refused",
        "Write true or false, beside tools; or remove it.",
    ),
    "openai-dpo-output": Code(
        "error",
        "a preferred or non-preferred output that is not one message",
        "the whole file is refused",
        "Give each output exactly one assistant message; earlier turns belong into input.",
    ),
    "openai-over-long": Code(
        "error",
        "an example longer than the model's limit for one example",
        "it is cut there, answer first, or the file is refused",
        "Shorten the example, or split it.",
    ),
    "too-few-examples": Code(
        "error",
        "fewer examples than the provider takes",
        "the job is refused",
        "Add rows: at least 10.",
    ),
    "few-examples": Code(
        "warning",
        "fewer examples than usually show a gain",
        "50 to 100 good examples are where gains begin",
        "Add rows.",
    ),
}

for _name, _code in FILE_CODES.items():
    FILE_CODES[_name] = _code._replace(what=_code.what or READING[_name])
