"""The folder of a dream, which is also its state.

dream.toml       the settings
frames/          numbered PNGs from 00000, the start; each says its value, score and noise
metrics.jsonl    what the frames say, a line each
frames.png       frames side by side
dream.mp4        or .gif
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from evojax_art.artwork.picture import write_png
from evojax_art.artwork.provenance import read_provenance
from evojax_art.artwork.sheets import contact_sheet, spread, thumbnail
from evojax_art.artwork.video import check_video, write_video
from evojax_art.language.photographs import read_image
from evojax_art.runs.dream import DreamConfig, Frame
from evojax_art.runs.toml import config_text, read_config
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import write_text
from evojax_art.runtime.tables import INLINE, to_table

_SHEET_CELLS = 12
_SHEET_CELL = 192  # pixels


@dataclass(frozen=True, kw_only=True)
class _Dream:
    """What dream.toml holds.

    Attributes:
        start: what the dream starts from, as it was given.
        dream: the settings.
    """

    start: str
    dream: DreamConfig = field(metadata=INLINE)


class DreamFolder:
    """A new folder, or one with frames of the same settings to go on from.

    Nothing is written before the first frame.

    Args:
        path: the folder.
        start: what the dream starts from, as it was given.
        config: the settings.

    Raises:
        InputError: a folder with something else in it, or a dream of other settings.
    """

    def __init__(self, path: Path, start: str, config: DreamConfig):
        self._path = path
        self._dream = _Dream(start=start, dream=config)
        self._check()

    def __len__(self) -> int:
        """Whole frames there are, from the first one on."""
        number = 0
        while self._frame_path(number).is_file():
            number += 1
        return number

    def check_video(self, kind: str, fps: float) -> None:
        """Finds out before long work whether the video can be written.

        Raises:
            InputError: it cannot.
        """
        place = next(
            place for place in (self._path, *self._path.absolute().parents) if place.is_dir()
        )
        check_video(place / f"dream.{kind}", fps)

    def last(self) -> tuple[UInt8[np.ndarray, "H W 3"], str]:
        """The last frame and the formula that drew it, if one did.

        Raises:
            InputError: it cannot be read.
        """
        path = self._frame_path(len(self) - 1)
        return read_image(path), read_provenance(path).drawn_by

    def write(self, number: int, frame: Frame) -> None:
        """Adds a frame.

        Raises:
            InputError: it cannot be written.
        """
        settings = self._path / "dream.toml"
        try:
            (self._path / "frames").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write folder {self._path}: {error.strerror}; give another one with --out"
            ) from error
        if not settings.exists():
            write_text(settings, config_text(self._dream, "a dream; the same command goes on"))
        write_png(self._frame_path(number), frame.picture, frame.provenance(number).to_text())

    def finish(self, kind: str, fps: float) -> list[Path]:
        """Writes what is made of the frames, in place of what there was; says what.

        Args:
            kind: of the video: mp4, gif or none.
            fps: its frames per second.

        Raises:
            InputError: something cannot be written.
        """
        count = len(self)
        lines, told = [], []
        for number in range(count):
            said = read_provenance(self._frame_path(number))
            numbers = {"value": said.value, "score": said.score, "noise": said.noise}
            told.append(numbers)
            lines.append(json.dumps({"frame": number, **numbers}) + "\n")
        written = [self._path / name for name in ("metrics.jsonl", "frames.png")]
        write_text(written[0], "".join(lines))
        shown = spread(count, _SHEET_CELLS)
        pictures = [thumbnail(read_image(self._frame_path(n)), _SHEET_CELL) for n in shown]
        captions = [f"{n}: noise {told[n]['noise']:.3f}" for n in shown]
        write_png(written[1], contact_sheet(pictures, captions, cell=_SHEET_CELL), {})
        if kind != "none":
            written.append(self._path / f"dream.{kind}")
            frames = (read_image(self._frame_path(number)) for number in range(count))
            write_video(written[-1], frames, fps=fps, text={"dream": to_table(self._dream)})
        return written

    def noises(self) -> list[float]:
        """The noise of every frame."""
        said = [read_provenance(self._frame_path(number)).noise for number in range(len(self))]
        return [math.nan if noise is None else noise for noise in said]

    def _frame_path(self, number: int) -> Path:
        return self._path / "frames" / f"{number:05d}.png"

    def _check(self) -> None:
        settings = self._path / "dream.toml"
        if not self._path.exists():
            return
        if not self._path.is_dir():
            raise InputError(f"{self._path} is a file; give a folder with --out")
        if not any(self._path.iterdir()):
            return
        if not settings.is_file():
            raise InputError(f"folder {self._path} is not empty; give another one with --out")
        try:
            found = _flat(to_table(read_config(settings, _Dream)))
        except InputError as error:
            raise InputError(f"{error}; give another --out") from error
        wanted = _flat(to_table(self._dream))
        different = [name for name in wanted | found if found.get(name) != wanted.get(name)]
        if different:
            name = different[0]
            was, now = found.get(name), wanted.get(name)
            raise InputError(
                f"folder {self._path} holds a dream with {name} = {was}, not {now}: give the same "
                "settings to go on with it, or another folder with --out"
            )


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
