"""Records of Parquet and Arrow files, and of a data set's `save_to_disk` folder, by pyarrow.

Reads batch by batch: memory is that of one batch. pyarrow is large and most users have no need of
it, so it is an extra (deploy/requirements-parquet.txt); without it these files are refused.
"""

import json
import os

from tandem.violations import BadFile

BATCH_ROWS = 1024
INSTALL = "python -m pip install -r deploy/requirements-parquet.txt"
STATE = "state.json"


def arrow_module(path):
    try:
        import pyarrow
    except ImportError as error:
        raise BadFile(
            f"{path} needs the package pyarrow, which is not installed here; install it into the "
            f"workers' Python environment: {INSTALL}"
        ) from error
    return pyarrow


def columnar_records(path, kind, columns):
    """Dicts of those columns that the file has. Raises BadFile."""
    pyarrow = arrow_module(path)
    batches = {".parquet": parquet_batches, ".arrow": arrow_batches, "folder": folder_batches}
    try:
        for batch in batches[kind](path):
            names = [name for name in batch.schema.names if name in columns]
            if not names:
                found = ", ".join(batch.schema.names[:8])
                raise BadFile(f"{path} has the columns {found}; it needs one of {NEEDED}")
            yield from batch.select(names).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise BadFile(f"{path} cannot be read ({error}); copy it again") from error


NEEDED = "text, instruction and output, prompt and response, messages, or the one of data.text_key"


def parquet_batches(path):
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH_ROWS)


def arrow_batches(path):
    """The stream format, which the library `datasets` writes, or the file format."""
    import pyarrow
    import pyarrow.ipc

    with pyarrow.memory_map(path) as source:
        try:
            reader = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            file = pyarrow.ipc.open_file(source)
            reader = (file.get_batch(index) for index in range(file.num_record_batches))
        for batch in reader:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)


def folder_batches(path):
    for name in folder_files(path)[1:]:
        yield from arrow_batches(name)


def folder_files(path):
    """Paths of state.json and of the data files that it names. Raises BadFile."""
    state = os.path.join(path, STATE)
    if os.path.isfile(os.path.join(path, "dataset_dict.json")):
        raise BadFile(f"{path} holds several splits; name the folder of one, as {path}/train")
    try:
        with open(state, encoding="utf-8") as file:
            description = json.load(file)
        names = [entry["filename"] for entry in description["_data_files"]]
        moved = description.get("_indices_files")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(
            f"{path} is a folder without a readable {STATE}; name the files themselves, or a "
            "folder that save_to_disk of the library datasets has written"
        ) from error
    if moved:
        raise BadFile(
            f"{path} is a selection of rows with an index; save it flat: "
            "dataset.flatten_indices().save_to_disk(...)"
        )
    if any(os.path.basename(name) != name for name in names):
        raise BadFile(f"{path}/{STATE} names files outside of its folder")
    return [state, *(os.path.join(path, name) for name in names)]
