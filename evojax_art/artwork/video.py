"""Moving pictures: frames into an MP4, a GIF or a folder of PNGs, whole or not at all.

A name says what is wanted. `.mp4` is H.264 in yuv420p, which plays anywhere and takes even sizes
only, so an odd width or height is made even by its last column or row once more. `.gif` loops, and
has a palette of its own for every frame. A name without a suffix is a folder of numbered PNGs.
What is said of the picture, above all its formula, goes in as a comment (JSON), or into the text of
every PNG.

An MP4 needs an ffmpeg: the system's, or the one that the package's extra `video` installs. It is
started here and not by `imageio_ffmpeg.write_frames`, which does not look at its exit status, so
that a full disk would pass for success, and forks in a way of which JAX warns.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from evojax_art.artwork.picture import write_png
from evojax_art.render.schedule import check_fps
from evojax_art.runtime.errors import InputError
from evojax_art.runtime.files import check_writable, written_whole

Frames = Iterable[UInt8[np.ndarray, "H W 3"]]
_FASTEST_GIF = 50  # frames per second: viewers slow anything shorter than 0.02 s down to 0.1 s
_H264 = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-crf", "17")  # 17: no loss that one sees
_COLOURS = (  # said and meant: without this, players guess by the size of the picture
    "-vf",
    "scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=iec61966-2-1",
)
_PALETTE_PIXELS = 1 << 12  # that a palette is chosen by; by all, a GIF takes 20 times as long


def check_video(path: Path, fps: float = 25) -> None:
    """Finds out before long work whether `write_video` can write there; leaves nothing behind.

    Raises:
        InputError: an unknown suffix, a place that cannot be written, a folder with something in
            it, a rate that the format cannot have, or an MP4 without a working ffmpeg.
    """
    kind = _kind(path)
    check_fps(fps)
    if kind == "gif" and fps > _FASTEST_GIF:
        raise InputError(
            f"{path}: a GIF shows at most {_FASTEST_GIF} frames per second, not {fps:g}; "
            "lower fps, or write an .mp4"
        )
    if kind != "folder":
        check_writable(path)
    elif path.exists() and not path.is_dir():
        raise InputError(
            f"cannot write frames into {path}: it is a file; give .mp4, .gif, a folder"
        )
    else:
        with _folder_written_whole(path, keep=False):
            pass
    if kind == "mp4" and (reason := why_no_mp4()):
        raise InputError(
            f"{path}: {reason}; give a name that ends in .gif or a folder for PNG frames, install "
            "evojax-art[video], or name an ffmpeg in $IMAGEIO_FFMPEG_EXE"
        )


def write_video(
    path: Path,
    frames: Frames,
    *,
    fps: float = 25,
    text: Mapping[str, object] | None = None,
    frame_text_fn: Callable[[int], Mapping[str, object]] | None = None,
) -> None:
    """Writes frames as they come; an existing file is replaced once all are there.

    An MP4 and a folder hold one frame in memory, a GIF all of them, at a byte a pixel.

    Args:
        path: where, see the module's docstring; a folder must be new or empty.
        frames: at least one, all of one size.
        fps: frames per second; in a GIF each lasts a whole number of hundredths of a second, chosen
            so that the clip as a whole keeps time. Nothing to a folder.
        text: what is said of the picture, `formula` the key that matters.
        frame_text_fn: from a frame's number, 0 the first, what its PNG in a folder says in place of
            `text` and fps.

    Raises:
        InputError: as `check_video`, or a disk that is full.
        ValueError: no frames, or frames of several sizes.
    """
    kind, said, checked = _kind(path), dict(text or {}), _same_size(frames)
    if kind == "folder":
        _write_folder(path, checked, frame_text_fn or (lambda number: {**said, "fps": fps}))
    else:
        (_write_mp4 if kind == "mp4" else _write_gif)(path, checked, fps, said)


def _kind(path: Path) -> Literal["mp4", "gif", "folder"]:
    suffix = path.suffix.lower()
    if suffix == ".mp4":
        return "mp4"
    if suffix == ".gif":
        return "gif"
    if not suffix or path.is_dir():
        return "folder"
    raise InputError(
        f"{path}: unknown kind of video {suffix}; give .mp4, .gif, or a folder for PNG frames"
    )


def _same_size(frames: Frames) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    shape = None
    for frame in frames:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame is bytes [H, W, 3], not {frame.dtype} {frame.shape}")
        if frame.shape != (shape := shape or frame.shape):
            raise ValueError(f"frames of several sizes: {shape[:2]} and {frame.shape[:2]}")
        yield frame
    if shape is None:
        raise ValueError("a video needs at least one frame")


def _write_mp4(path: Path, frames: Frames, fps: float, text: dict[str, object]) -> None:
    frames = iter(frames)
    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])
    with (
        written_whole(path) as temporary,
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryFile() as complaints,
    ):
        comment = Path(scratch) / "comment"  # a file, as an argument may not be as long
        escaped = re.sub(r"([=;#\\\n])", r"\\\1", json.dumps(text, default=str))
        comment.write_text(f";FFMETADATA1\ncomment={escaped}\n", encoding="utf-8")
        rate = str(Fraction(fps).limit_denominator(1001))
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate)
        process = subprocess.Popen(
            [
                *(_ffmpeg(), "-v", "error", "-y", *raw, "-i", "-"),
                *("-f", "ffmetadata", "-i", comment, "-map", "0:v", "-map_metadata", "1"),
                *(*_COLOURS, *_H264, "-movflags", "+faststart", "-f", "mp4", temporary),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,  # Ctrl-C is for us
        )
        assert process.stdin is not None
        try:
            for frame in itertools.chain([first], frames):
                around = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
                process.stdin.write(np.pad(frame, around, mode="edge").tobytes())
        except BrokenPipeError:
            pass  # it has given up; its status and what it says tell why
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            status = process.wait()
        if status:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().splitlines()
            raise InputError(f"cannot write {path}: ffmpeg: {said[-1] if said else 'it failed'}")


def _write_gif(path: Path, frames: Frames, fps: float, text: dict[str, object]) -> None:
    def images() -> Iterator[Image.Image]:
        for number, frame in enumerate(frames):
            image = _with_palette(frame)
            start, end = (round(100 * n / fps) for n in (number, number + 1))
            image.info["duration"] = 10 * (end - start)  # milliseconds
            yield image

    every = images()
    first = next(every)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        first.save(
            file,
            format="GIF",
            save_all=True,
            append_images=every,
            loop=0,
            comment=json.dumps(text, default=str),
        )


def _with_palette(frame: UInt8[np.ndarray, "H W 3"]) -> Image.Image:
    """A frame in its own 256 colours, dithered: pictures of formulas are full of gradients."""
    step = max(1, round((frame.shape[0] * frame.shape[1] / _PALETTE_PIXELS) ** 0.5))
    sample = Image.fromarray(np.ascontiguousarray(frame[::step, ::step]))
    palette = sample.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    dither = Image.Dither.FLOYDSTEINBERG
    return Image.fromarray(frame).quantize(palette=palette, dither=dither)


def _write_folder(
    path: Path, frames: Frames, text_fn: Callable[[int], Mapping[str, object]]
) -> None:
    with _folder_written_whole(path) as folder:
        for number, frame in enumerate(frames):
            write_png(folder / f"{number + 1:06d}.png", frame, text_fn(number))


@contextmanager
def _folder_written_whole(path: Path, keep: bool = True) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes it when the block ends well.

    Raises:
        InputError: the place cannot be written, or holds something already.
    """
    try:
        if path.exists() and any(path.iterdir()):
            raise InputError(f"folder {path} is not empty; give a new one for the frames")
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write folder {path}: {error.strerror}") from error
    try:
        yield temporary
        if keep:
            made_as_usual = temporary / "frames"  # mkdtemp's folders are private
            made_as_usual.mkdir()
            temporary.chmod(made_as_usual.stat().st_mode)
            made_as_usual.rmdir()
            if path.exists():
                path.rmdir()
            temporary.rename(path)
    except OSError as error:
        raise InputError(f"cannot write folder {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def why_no_mp4() -> str:
    """What keeps this machine from writing an MP4, found by encoding one small frame; or ""."""
    source = ("-f", "lavfi", "-i", "color=size=16x16:rate=1:duration=1")
    try:
        command = [_ffmpeg(), "-v", "error", *source, *_COLOURS, *_H264, "-f", "null", "-"]
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        failed, said = result.returncode != 0, result.stderr.strip()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        failed, said = True, str(error)
    last = (said.splitlines() or ["it failed"])[-1]
    return f"no ffmpeg that can write H.264 ({last})" if failed else ""


def _ffmpeg() -> str:
    """What $IMAGEIO_FFMPEG_EXE names, else the one of the extra `video`, else the system's.

    Raises:
        RuntimeError: there is none.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        program = os.environ.get("IMAGEIO_FFMPEG_EXE") or shutil.which("ffmpeg")
        if not program:
            raise RuntimeError("there is none on the PATH") from None
        return program
    return get_ffmpeg_exe()
