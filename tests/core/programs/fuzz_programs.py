"""Coverage-guided fuzzing of the readers: any text is read and reads back as the same, or ends in ProgramError.

    python tests/core/programs/fuzz_programs.py -max_total_time=60 [FOLDER OF SEEDS]

Needs ``atheris``, which is no dependency; ``test_programs_fuzz`` runs this where it is installed.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["easeml_core.programs"]):
    from easeml_core.errors import ProgramError
    from easeml_core.programs.language import parse_any, parse_data_type, parse_pattern, parse_program

READERS = (parse_program, parse_data_type, parse_pattern, parse_any)
LONGEST = 150_000
"""Of a text whose canonical form must be readable: that may be longer than the text."""


def one_text(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for read in READERS:
        try:
            found = read(text)
        except ProgramError as error:
            str(error)
            continue
        canonical = str(found)
        if len(canonical) < LONGEST and read(canonical) != found:
            message = f"{canonical!r} does not read back as the same"
            raise RuntimeError(message)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_text)
    atheris.Fuzz()
