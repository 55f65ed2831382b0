"""What kind of media file the first bytes are of: a name's ending is only what somebody says."""

from __future__ import annotations

import re
from pathlib import PurePath

from hscmae.extract.media import AUDIO, IMAGE, VIDEO

HEAD = 4096  # bytes that are looked at
# First bytes, and the ending under which the decoders are given the file.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", ".png"),
    (rb"\xff\xd8\xff", ".jpg"),
    (rb"GIF8[79]a", ".gif"),
    (rb"RIFF....WEBP", ".webp"),
    (rb"BM.{4}\0{4}", ".bmp"),
    (rb"II\*\0|MM\0\*", ".tif"),
    (rb"RIFF....WAVE|RF64....WAVE", ".wav"),
    (rb"RIFF....AVI ", ".avi"),
    (rb"fLaC", ".flac"),
    (rb"OggS.{24,}\x80theora", ".ogv"),
    (rb"OggS", ".ogg"),
    (rb"ID3", ".mp3"),
    (rb"FORM....AIF[FC]", ".aif"),
    (rb"....ftyp(M4A|M4B)", ".m4a"),
    (rb"....ftyp", ".mp4"),
    (rb"....(moov|mdat|wide|free)", ".mov"),
    (rb"\x1aE\xdf\xa3", ".mkv"),
    (rb"FLV\x01", ".flv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wmv"),
    (rb"\0\0\x01[\xb3\xba]", ".mpg"),
    (rb"G.{187}G", ".ts"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", ".aac"),
    (rb"\xff[\xe2-\xef\xf2-\xf7\xfa-\xff]", ".mp3"),
)
PATTERNS = tuple((re.compile(pattern, re.DOTALL), ending) for pattern, ending in SIGNATURES)
BOTH = frozenset({".mkv", ".mp4", ".mov", ".ogv", ".wmv"})  # containers that may hold sound alone


def ending_of(head: bytes) -> str | None:
    """The ending that a media file with these first bytes ought to have; ``None`` where it is none that is decoded.

    >>> ending_of(b"OggS" + bytes(40)), ending_of(b"<svg xmlns=''/>"), ending_of(b"")
    ('.ogg', None, None)
    """
    return next((ending for pattern, ending in PATTERNS if pattern.match(head[:HEAD])), None)


def agrees(name: str, ending: str) -> bool:
    """Whether a file's name does not claim another kind of media than its content is; no ending claims nothing.

    >>> agrees("dog.png", ".jpg"), agrees("dog.png", ".wav"), agrees("dog.html", ".png"), agrees("dog", ".png")
    (True, False, False, True)
    """
    claimed = PurePath(name).suffix.lower()
    if not claimed:
        return True
    sound = claimed in AUDIO and (ending in AUDIO or ending in BOTH)
    moving = claimed in VIDEO and (ending in VIDEO or ending in AUDIO)
    return sound or moving or (claimed in IMAGE and ending in IMAGE)
