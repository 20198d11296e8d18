"""PDF files of a few lines, written by hand as the format has them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence


def tiny_pdf(
    pages: Sequence[Sequence[str]], *, outline: Sequence[tuple[str, int]] = (), packed: bool = False
) -> bytes:
    """A page for each list of lines; `outline` are titles with the index of their page."""
    return written_pdf([_drawing(lines) for lines in pages], outline=outline, packed=packed)


def written_pdf(
    drawings: Sequence[bytes], *, outline: Sequence[tuple[str, int]] = (), packed: bool = False
) -> bytes:
    """A page for each content stream."""
    first = 4
    kids = " ".join(f"{first + 2 * page} 0 R" for page in range(len(drawings)))
    at_outline = first + 2 * len(drawings)
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R /Outlines {at_outline} 0 R >>".encode(),
        f"<< /Type /Pages /Kids [{kids}] /Count {len(drawings)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for page, drawing in enumerate(drawings):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            b"/Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % (first + 2 * page + 1)
        )
        content = zlib.compress(drawing, 9) if packed else drawing
        filtered = b"/Filter /FlateDecode " if packed else b""
        objects.append(
            b"<< %s/Length %d >>\nstream\n%s\nendstream" % (filtered, len(content), content)
        )
    objects += _outline(outline, at_outline, first)
    return _file(objects)


def _drawing(lines: Sequence[str]) -> bytes:
    shown = b"\n".join(b"(%s) Tj T*" % _escaped(line) for line in lines)
    return b"BT /F1 12 Tf 14 TL 72 720 Td\n" + shown + b"\nET"


def _outline(entries: Sequence[tuple[str, int]], root: int, first_page: int) -> list[bytes]:
    last = root + len(entries)
    ends = f"/First {root + 1} 0 R /Last {last} 0 R " if entries else ""
    objects = [f"<< /Type /Outlines {ends}/Count {len(entries)} >>".encode()]
    for number, (title, page) in enumerate(entries, 1):
        after = f"/Next {root + number + 1} 0 R " if number < len(entries) else ""
        before = f"/Prev {root + number - 1} 0 R " if number > 1 else ""
        place = f"[{first_page + 2 * page} 0 R /XYZ 0 0 0]"
        objects.append(
            b"<< /Title (%s) %s >>"
            % (_escaped(title), f"/Parent {root} 0 R {before}{after}/Dest {place}".encode())
        )
    return objects


def _escaped(text: str) -> bytes:
    for character in "\\()":
        text = text.replace(character, f"\\{character}")
    return text.encode("cp1252")


def _file(objects: Sequence[bytes]) -> bytes:
    written = b"%PDF-1.7\n"
    places = []
    for number, one in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    return (
        written
        + b"xref\n0 %d\n0000000000 65535 f \n" % count
        + table
        + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, len(written))
    )
