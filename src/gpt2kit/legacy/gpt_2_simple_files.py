"""What gpt-2-simple keeps on disk: models of OpenAI's, texts to learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt2kit.atomic import replacing
from gpt2kit.data.documents import read_rows
from gpt2kit.data.sources import find_sources
from gpt2kit.errors import DownloadError
from gpt2kit.hub.catalogue import KnownModel
from gpt2kit.hub.fetch import Refused, Wanted, fetch
from gpt2kit.hub.promise import Promise
from gpt2kit.hub.web import Web
from gpt2kit.jobs.download import download
from gpt2kit.jobs.encode import encode
from gpt2kit.legacy.bars import bars
from gpt2kit.legacy.gpt_2_simple_errors import NotThere
from gpt2kit.legacy.old_texts import npz_name, old_inputs, old_reading
from gpt2kit.resolve import known_directory

FILES = (
    *("checkpoint", "encoder.json", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"),
    *("model.ckpt.meta", "vocab.bpe"),
)
START, END = "<|startoftext|>", "<|endoftext|>"


def download_file_with_progress(url_base: str, sub_dir: str, model_name: str, file_name: str) -> None:
    """Fetch URL_BASE/models/MODEL_NAME/FILE_NAME into the directory `sub_dir`, with a bar; broken off, it goes on."""
    Path(sub_dir).mkdir(parents=True, exist_ok=True)
    url = f"{url_base}/models/{model_name}/{file_name}"
    wanted = Wanted(url, Path(sub_dir, file_name), Promise(), f"{model_name}/{file_name}")
    try:
        with bars() as report, Web(url_base) as web:
            fetch(web, wanted, report)
    except Refused as refused:
        raise DownloadError(str(refused)) from None


def download_gpt2(model_dir: str = "models", model_name: str = "124M") -> None:
    """Fetch a model of OpenAI's into MODEL_DIR/MODEL_NAME; broken off, it goes on, and what is there it leaves."""
    fetch_gpt2(Path(model_dir), model_name)


def fetch_gpt2(
    models: Path, name: str, *, endpoint: str | None = None, catalogue: Sequence[KnownModel] | None = None
) -> None:
    """As `download_gpt2`; from a mirror, if one is named, and also what a `catalogue` of one's own knows."""
    with bars() as report:
        download(name, source="openai", endpoint=endpoint, models=models, catalogue=catalogue, report=report)


def is_gpt2_downloaded(model_dir: str = "models", model_name: str = "124M") -> bool:
    """Whether all seven files of a model of OpenAI's are there, be it under the other of its two names."""
    place = find_model(model_dir, model_name)
    return place is not None and all((place / name).is_file() for name in FILES)


def find_model(model_dir: str, model_name: str) -> Path | None:
    """The directory of a model, also of OpenAI's under the other of its two names."""
    place = Path(model_dir, model_name)
    return place if place.is_dir() else known_directory(model_name, Path(model_dir))


def model_place(model_dir: str, model_name: str) -> Path:
    """The directory of a model. Raises NotThere."""
    if place := find_model(model_dir, model_name):
        return place
    raise NotThere(
        f"{Path(model_dir, model_name)}: no such model; get it with: gpt2.download_gpt2(model_name={model_name!r})"
    )


def encode_csv(
    csv_path: str,
    out_path: str = "csv_encoded.txt",
    header: bool = True,
    start_token: str = START,
    end_token: str = END,
) -> None:
    """Write the first column of a CSV file as a text to learn, each row between the two marks."""
    with (
        open(csv_path, encoding="utf-8", errors="ignore") as lines,
        replacing(Path(out_path)) as text,  # which may be the same file
    ):
        if header:
            next(lines, None)
        for _, row in read_rows(lines, find_sources([csv_path])[0]):
            text.write(f"{start_token}{row[0]}{end_token}\n".encode())


def encode_dataset(
    file_path: str,
    model_dir: str = "models",
    out_path: str = "text_encoded.npz",
    model_name: str = "124M",
    combine: int = 50000,
) -> None:
    """Encode a text, file, directory or glob, into an .npz, so that `finetune` need not."""
    place = model_place(model_dir, model_name)
    print("Reading files", flush=True)
    with bars() as report:
        encode(
            old_inputs(file_path),
            npz_name(out_path),
            model=place,
            reading=old_reading(combine, invalid="ignore"),
            overwrite=True,
            report=report,
        )
    print("Writing", out_path, flush=True)
