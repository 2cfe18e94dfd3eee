"""`python -m triton_models`: write README.md and the config.pbtxt files of this folder anew."""

from pathlib import Path

from triton_models.document import write

if __name__ == "__main__":
    write(Path(__file__).parent)
