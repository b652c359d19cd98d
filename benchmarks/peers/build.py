"""What the programs beside ours need, built once: environments, llama.cpp, models in the formats of others.

Each rule makes one file or folder, under another name until it is whole. All lies under $GPT2KIT_PEERS, or build/peers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("GPT2KIT_PEERS", HERE.parents[1] / "build" / "peers"))
LLAMA = "llama_cpp_python-0.3.36"
CONVERTERS = ("torch==2.13.0", "transformers==5.23.0", "ctranslate2==4.8.5")
# llama.cpp finds out what this processor can do when it is compiled.
LLAMA_CMAKE = "-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF"
# gcc 12 takes the tiles' sizes for unused, leaves them 0, and the first token ends llama.cpp with a segmentation fault
# where the processor has AMX (its issue 20824). One line keeps them.
LOADS_TILES = "    _tile_loadconfig(&tc);"
FILLED = '    __asm__ volatile("" : : "m"(tc));\n'
LLAMA_PROGRAMS = ("llama-server", "llama-completion")


def made(target: Path, rule: Callable[[Path], None]) -> Path:
    """The target; the rule makes it if it is missing."""
    if not target.exists():
        print(f"  making {target}", file=sys.stderr)
        part = target.with_name(f"part-{target.name}")
        part.parent.mkdir(parents=True, exist_ok=True)
        rule(part)
        part.rename(target)
    return target


def environment(name: str, *packages: Path | str, **variables: str) -> Path:
    """The interpreter of a virtual environment of its own with these packages."""
    place = PEERS / name
    python = place / "bin" / "python"

    def rule(part: Path) -> None:
        venv.create(place, clear=True, symlinks=True, with_pip=True)
        run(python, "-m", "pip", "install", "--quiet", *packages, **variables)
        part.touch()

    made(place / "installed", rule)
    return python


def converters() -> Path:
    """The interpreter with torch: transformers, and the converters of the others."""
    return environment("transformers", *CONVERTERS)


def llama_source() -> Path:
    """What llama-cpp-python is built from; llama.cpp's converter lies in it."""

    def rule(part: Path) -> None:
        pinned = LLAMA.replace("_", "-").replace("python-", "python==")
        run(converters(), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", PEERS, pinned)
        with tarfile.open(PEERS / f"{LLAMA}.tar.gz") as archive:
            archive.extractall(part, filter="data")
        file = part / LLAMA / "vendor" / "llama.cpp" / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
        text = file.read_text("utf-8")
        assert text.count(LOADS_TILES) == 1, f"{file} is another one than expected"
        file.write_text(text.replace(LOADS_TILES, FILLED + LOADS_TILES), "utf-8")

    return made(PEERS / "llama-source", rule) / LLAMA


def llama() -> Path:
    """The interpreter with llama.cpp, compiled for this processor."""
    return environment("llama", llama_source(), CMAKE_ARGS=LLAMA_CMAKE)


def llama_program(name: str) -> Path:
    """A program of llama.cpp's own, from the same source with the same options."""

    def rule(part: Path) -> None:
        cmake = environment("cmake", "cmake==4.1.2", "ninja").with_name("cmake")
        without = [f"-DLLAMA_{what}=OFF" for what in ("BUILD_UI", "USE_PREBUILT_UI", "BUILD_TESTS", "BUILD_EXAMPLES")]
        ninja = ("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={cmake.with_name('ninja')}")
        options = (*ninja, *LLAMA_CMAKE.split(), *without, "-DBUILD_SHARED_LIBS=OFF", "-DCMAKE_BUILD_TYPE=Release")
        run(cmake, "-S", llama_source() / "vendor" / "llama.cpp", "-B", part, *options)
        run(cmake, "--build", part, "--target", *LLAMA_PROGRAMS)

    return made(PEERS / "llama-programs", rule) / "bin" / name


def gguf(model: Path, kind: str) -> Path:
    """The model as llama.cpp keeps it, made by its own converter and quantiser."""
    program = llama_source() / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    whole = PEERS / "models" / model.name / "F32.gguf"
    made(whole, lambda part: run(converters(), program, model, "--outtype", "f32", "--outfile", part))
    if kind == "F32":
        return whole
    return made(whole.with_name(f"{kind}.gguf"), lambda part: run(llama(), HERE / "quantise.py", whole, part, kind))


def ct2(model: Path, kind: str) -> Path:
    """The model as CTranslate2 keeps it."""
    program = converters().with_name("ct2-transformers-converter")
    return made(
        PEERS / "models" / model.name / f"ctranslate2-{kind}",
        lambda part: run(program, "--model", model, "--output_dir", part, "--quantization", kind),
    )


def run(*command: Path | str, **variables: str) -> None:
    """Run it to its end; what it says goes to a file that is named if it fails."""
    log = PEERS / "log.txt"
    with log.open("a", encoding="utf-8") as said:
        done = subprocess.run(command, stdout=said, stderr=said, env={**os.environ, **variables})
    assert done.returncode == 0, f"{command} failed; see {log}"
