"""The kind of video that commands write where nobody chose one."""

import sys
from typing import Literal

from evojax_art.artwork.video import why_no_mp4


def usual_kind(command: str) -> Literal["mp4", "gif"]:
    """MP4 where this machine can write one; else GIF, of which `command` says why."""
    reason = why_no_mp4()
    if reason:
        print(f"{command}: {reason}: a GIF instead; see evojax-art[video]", file=sys.stderr)
    return "gif" if reason else "mp4"
