"""Documents: read, cut into passages, and asked about. Pure: bytes and texts in, texts out.

    content -> read_document -> Document -> pieces -> (a tokenizer counts) -> pack -> passages

No text of a document is ever in an error's message.
"""

from seal.documents.model import Block, Document, GivenQuestion, Section
from seal.documents.passages import Passage, Piece, cut, pack, pieces
from seal.documents.read import check_together, media_type_of, read_document
from seal.documents.source import check_name

__all__ = [
    "Block",
    "Document",
    "GivenQuestion",
    "Passage",
    "Piece",
    "Section",
    "check_name",
    "check_together",
    "cut",
    "media_type_of",
    "pack",
    "pieces",
    "read_document",
]
