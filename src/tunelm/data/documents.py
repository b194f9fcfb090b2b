"""Documents: plain text, Markdown, HTML and PDF, a file or a folder of them; each is one text.

Line ends are read as Python reads them (all become a line feed). Markdown is kept as it is. Of
HTML the text is kept, block by block, without scripts, styles and the head; a page that is one
<pre> is kept as it is. Of a PDF the text layer is kept, pages parted by an empty line; a scan has
none.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunelm.data.detect import DOCUMENTS, SUFFIXES, require_text
from tunelm.data.files import Item, RawRow
from tunelm.data.opening import DOCUMENT_LIMIT, MIB, cannot_read, opened, read_document
from tunelm.data.records import Fault
from tunelm.errors import DataError, PrerequisiteError

_BLOCKS = """
address article aside blockquote body caption center dd details dialog dir div dl dt fieldset
figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav ol option
p pre search section select summary table tbody tfoot thead title tr ul
"""
BLOCKS = frozenset(_BLOCKS.split())
_HTML_SPACE = " \t\r\n\f"
UNSEEN = frozenset(("head", "script", "style", "template", "noscript", "svg", "math", "object"))


def document_rows(path: Path, columns: Mapping[str, str], kind: str) -> Iterator[Item]:
    """One document as one row. Raises DataError when it has no text or cannot be read."""
    yield RawRow(str(path), 1, {"text": _document(path, kind)})


def folder_rows(path: Path, columns: Mapping[str, str], kind: str) -> Iterator[Item]:
    """Every document in a folder and its subfolders, by name; hidden files are left alone.

    `kind` is one kind of document, or `folder` for all. A file that is no document is a warning,
    a document that cannot be read a fault, and a folder without any text a DataError.
    """
    texts, others = 0, list[str]()
    for found in _walk(path):
        if isinstance(found, Fault):
            yield found
            continue
        its = SUFFIXES.get(_suffix(found), "")
        if its not in DOCUMENTS or kind not in ("folder", its):
            others.append(found.name)
            mend = "Read it by its own path, if it holds rows or text."
            yield Fault("not-a-document", "warning", str(found), 0, "left out: no document.", mend)
            continue
        try:
            yield RawRow(str(found), 1, {"text": _document(found, its)})
            texts += 1
        except DataError as error:
            what = str(error).removeprefix(f"{found}: ")
            yield Fault("unreadable-document", "error", str(found), 0, what)
    if not texts:
        held = f"it holds {', '.join(sorted(others)[:5])}" if others else "it holds no document"
        raise DataError(
            f"{path}: is a folder without any text ({held}). Name a file of rows, or a folder with "
            ".txt, .md, .html or .pdf files."
        )


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _walk(root: Path) -> Iterator[Path | Fault]:
    """The files below a folder, each folder once, whatever links there are."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            place = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            what = str(cannot_read(folder, error)).removeprefix(f"{folder}: ")
            yield Fault("unreadable-document", "error", str(folder), 0, what)
            continue
        if (place.st_dev, place.st_ino) in seen:
            found = "a link to a folder that is read already; not read again."
            yield Fault("link-loop", "warning", str(folder), 0, found)
            continue
        seen.add((place.st_dev, place.st_ino))
        inner: list[Path] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if path.is_dir():
                inner.append(path)
            else:
                yield path
        waiting += reversed(inner)


def _document(path: Path, kind: str) -> str:
    with opened(path) as stream:
        data = read_document(path, stream)
        if not data.strip():
            raise DataError(f"{path}: the file is empty.")
        text = _READERS[kind](path, data)
    if not text.strip():
        raise DataError(f"{path}: {_NO_TEXT.get(kind, 'there is no text in it.')}")
    return text


_NO_TEXT = {
    "pdf": "has no text layer (a scan?). Run it through OCR first, such as ocrmypdf.",
    "html": "has no text outside of scripts and styles.",
}


def _plain(path: Path, data: bytes) -> str:
    require_text(path, data[: 64 * 1024])
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(0)) + 1
        raise DataError(f"{path}:{line}: a NUL byte in the text. Remove it, or save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 text (a byte is 0x{data[error.start]:02x}). Save the file "
            "as UTF-8."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


# --- HTML ------------------------------------------------------------------------------------


def page_text(path: Path, data: bytes) -> str:
    """The text of an HTML page; `path` is what an error names.

    Raises DataError where it cannot be read, PrerequisiteError where lxml is not installed.
    """
    try:
        from lxml import etree, html  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        raise PrerequisiteError(_missing("HTML", "lxml")) from None
    require_text(path, data[: 64 * 1024])
    parser = html.HTMLParser(
        huge_tree=True, remove_comments=True, remove_pis=True, encoding="utf-8"
    )
    try:
        tree = html.document_fromstring(_as_utf8(path, data), parser=parser)
    except (etree.LxmlError, ValueError, AssertionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: no HTML that can be read ({_first_line(error)}).") from None
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise DataError(f"{path}: elements nested more than 2,048 deep; its end would be lost.")
    return _text_in_pre(tree) or _visible_text(tree)


def _as_utf8(path: Path, data: bytes) -> bytes:
    """The page in UTF-8, from the encoding that it names itself where it is not UTF-8 already."""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        data.decode()
        return data
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} is 0x{data[error.start]:02x}"
    said = re.search(rb"charset\s*=\s*[\"']?\s*([\w.:-]+)", data[:4096], re.IGNORECASE)
    name = said[1].decode("ascii", "replace") if said else ""
    try:
        return data.decode(name or "ascii").encode()
    except (LookupError, ValueError):
        why = f"and not the {name} it says" if name else "and does not say what else it is"
        raise DataError(f"{path}: not UTF-8 text ({byte}), {why}. Save it as UTF-8.") from None


def _text_in_pre(tree: Any) -> str:
    """The text of a page that is one <pre> and nothing else, as it is; "" for other pages."""
    body = tree.find("body")
    if body is None or len(body) != 1 or body[0].tag != "pre" or len(body[0]):
        return ""
    if any(part and part.strip(_HTML_SPACE) for part in (body.text, body[0].tail)):
        return ""
    text = (body[0].text or "").replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\n")  # one line break after the tag is none, by the HTML standard


def _visible_text(tree: Any) -> str:
    """The text of a tree: white space as a browser shows it, a line for each block."""
    parts: list[str] = []
    verbatim = unseen = 0

    def say(text: str | None) -> None:
        if not text or unseen:
            return
        if not verbatim:
            text = re.sub(f"[{_HTML_SPACE}]+", " ", text)
            text = text.lstrip(" ") if not parts or parts[-1][-1] in " \t\n" else text
        if text:
            parts.append(text)

    from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

    for event, element in etree.iterwalk(tree, events=("start", "end")):
        tag = element.tag
        change = 1 if event == "start" else -1
        if tag in BLOCKS and not unseen:
            parts.append("\n")
        elif tag == "br" and event == "start":
            say("\n") if verbatim else parts.append("\n")
        elif tag in ("td", "th") and event == "end" and not unseen:
            parts.append("\t")
        verbatim += change * (tag in ("pre", "textarea"))
        unseen += change * (tag in UNSEEN)
        say(element.text if event == "start" else element.tail)
    text = "".join(parts).replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip("\n") + "\n"


# --- PDF --------------------------------------------------------------------------------------


def _pdf(path: Path, data: bytes) -> str:
    try:
        import pypdf
        import pypdf.errors
    except ImportError:
        raise PrerequisiteError(_missing("PDF", "pypdf")) from None
    logger = logging.getLogger("pypdf")  # it logs what it mends; what it cannot, we say below
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _encrypted(path)
        pages = [page.extract_text() for page in reader.pages]
    except pypdf.errors.DependencyError:
        raise _encrypted(path) from None
    except DataError:
        raise
    except Exception as error:
        # a damaged file makes the library fail in many ways, all of them mean the same
        raise DataError(f"{path}: the PDF is damaged ({_first_line(error)}).") from None
    finally:
        logger.setLevel(level)
    text = "\n\n".join(page.strip() for page in pages if page.strip()) + "\n"
    if len(text) > DOCUMENT_LIMIT:
        raise DataError(f"{path}: holds more than {DOCUMENT_LIMIT // MIB} MiB of text.")
    # half a surrogate pair from a broken font table is no character; NUL stands for none
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _encrypted(path: Path) -> DataError:
    return DataError(
        f"{path}: the PDF is encrypted. Save it without a password, by qpdf --decrypt for instance."
    )


def _first_line(error: BaseException) -> str:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return first if len(first) <= 100 else first[:97] + "..."


def _missing(what: str, library: str) -> str:
    return f"{what} is read by {library}, which is not installed: pip install 'tunelm[data]'"


_READERS = {"txt": _plain, "markdown": _plain, "html": page_text, "pdf": _pdf}
