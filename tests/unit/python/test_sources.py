"""Records of every form and file kind, masks, weights and row ranges: what reaches the shards."""

import json
import os
import struct
import sys

import pytest
from prepare_request import jsonl, make_model, refused, request_of, shards_of, text
from tandem import prepare, record_forms, token_shards

__all__ = ["request_of"]  # a fixture

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TALK = [
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Then, the end."},
]


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def held(make, content, name="held.jsonl", **changes):
    """ids and labels of the validation documents; labels None without a mask."""
    (make.folder / name).write_bytes(content)
    result = prepare.prepare(make(validation=[str(make.folder / name)], **changes))
    folder = result["tokens"]
    masked = os.path.exists(folder + "/validation.mask.bin")
    labels = token_shards.read_shard(folder + "/validation.mask") if masked else None
    return shards_of(result)["validation"], labels, folder


def pieces(make, *parts):
    """Ids and labels of (text, label) parts between BOS and EOS."""
    ids, labels = [0], [parts[0][1]]
    for words, label in parts:
        part = make.tokenizer.encode(words).ids
        ids, labels = ids + part, labels + [label] * len(part)
    return ids + [1], labels + [parts[-1][1]]


PREAMBLE = "Below is an instruction that describes a task"
ASK = "Write a response that appropriately completes the request.\n\n"


def test_instruction_records_take_the_alpaca_template_in_two_forms(request_of):
    records = [
        {"instruction": "Name a fish. {input}", "input": "", "output": "A cod, the cold one."},
        {"instruction": "Add them.", "input": "1 and 2, and 3", "output": "6"},
        {"instruction": "No input at all: say so", "output": "So, so, so, so, so."},
    ]
    ids, labels, folder = held(request_of, lines(*records))
    prompts = [
        f"{PREAMBLE}. {ASK}### Instruction:\nName a fish. {{input}}\n\n### Response:",
        f"{PREAMBLE}, paired with an input that provides further context. {ASK}"
        "### Instruction:\nAdd them.\n\n### Input:\n1 and 2, and 3\n\n### Response:",
        f"{PREAMBLE}. {ASK}### Instruction:\nNo input at all: say so\n\n### Response:",
    ]
    for i, prompt in enumerate(prompts):
        expected = pieces(request_of, (prompt, 0), (records[i]["output"], 1))
        assert (ids[i], labels[i]) == expected, i
    manifest = json.load(open(folder + "/manifest.json"))
    assert manifest["instruction_template"] == record_forms.ALPACA_TEMPLATE
    assert manifest["validation_masked"] and not manifest["train_shards"][0]["masked"]
    assert {"validation.mask.bin", "validation.mask.idx"} <= set(manifest["files"])


def test_prompt_and_response_stand_as_they_are(request_of):
    ids, labels, _ = held(request_of, lines({"prompt": text(1), "response": text(2)}))
    assert (ids[0], labels[0]) == pieces(request_of, (text(1), 0), (text(2), 1))


def test_train_on_prompt_makes_everything_a_label(request_of):
    ids, labels, _ = held(
        request_of, lines({"prompt": text(1), "response": text(2)}), train_on_prompt=True
    )
    assert labels is None and ids[0] == pieces(request_of, (text(1), 1), (text(2), 1))[0]


def test_a_mask_that_comes_late_covers_what_came_before(request_of):
    content = jsonl(1, 2) + lines({"prompt": text(3), "response": text(4)}) + jsonl(5)
    ids, labels, _ = held(request_of, content)
    assert [len(part) for part in labels] == [len(part) for part in ids]
    assert [all(part) for part in labels] == [True, True, False, True]


@pytest.fixture
def chat_request(request_of, tmp_path):
    make_model(tmp_path / "chat", chat_template=CHAT_TEMPLATE)

    def make(**changes):
        return request_of(tokenizer=str(tmp_path / "chat"), **changes)

    make.tokenizer, make.folder = request_of.tokenizer, request_of.folder
    return make


def test_conversations_go_through_the_models_template(chat_request):
    talk = [{"role": "system", "content": text(3)}, *TALK]
    ids, labels, _ = held(chat_request, lines({"messages": talk}))
    whole = f"<s><|system|>\n{text(3)}</s>\n" + "".join(
        f"<|{m['role']}|>\n{m['content']}</s>\n" for m in TALK
    )
    assert chat_request.tokenizer.decode(ids[0], skip_special_tokens=False) == whole
    trained = [i for i, label in zip(ids[0], labels[0]) if label]
    said = chat_request.tokenizer.decode(trained, skip_special_tokens=False)
    assert said == "Because.</s>\nThen, the end.</s>\n"
    assert ids[0][:2] != [0, 0], "the template sets BOS; there is no second one"


def test_a_named_default_template_and_a_file_are_found(request_of, tmp_path):
    named = [{"name": "default", "template": CHAT_TEMPLATE}, {"name": "tool", "template": "x"}]
    make_model(tmp_path / "named", chat_template=named)
    make_model(tmp_path / "file")
    (tmp_path / "file" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    content = lines({"messages": TALK * 3})
    found = [
        held(request_of, content, tokenizer=str(tmp_path / name))[0] for name in ("named", "file")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "template, messages, words",
    [
        (None, TALK, "has no chat template"),
        ("{{ raise_exception('roles must alternate') }}", TALK, "roles must alternate"),
        ("{% for %}", TALK, "is not valid"),
        ("{{ ''.__class__.__mro__ }}", TALK, "refuses the messages"),
        ("{{ messages | length }}" + CHAT_TEMPLATE, TALK, "differently when more turns follow"),
        (CHAT_TEMPLATE, TALK[:1], "no turn of the role assistant"),
        (CHAT_TEMPLATE, [], "at least one"),
        (CHAT_TEMPLATE, [{"role": "user"}], "messages[0]"),
        (CHAT_TEMPLATE, [{"role": "user", "content": [1]}], "`content` is a JSON list"),
    ],
)
def test_conversations_that_cannot_be_rendered(request_of, tmp_path, template, messages, words):
    make_model(tmp_path / "chat", **({"chat_template": template} if template else {}))
    (tmp_path / "talk.jsonl").write_bytes(lines({"messages": messages}))
    violations = refused(
        request_of(tokenizer=str(tmp_path / "chat"), train=[str(tmp_path / "talk.jsonl")])
    )
    assert violations[0][0] == "data.train[0]" and "line 1" in violations[0][1]
    assert words in violations[0][1]


def test_a_broken_chat_template_is_no_matter_for_plain_text(request_of, tmp_path):
    make_model(tmp_path / "broken", chat_template="{% for %}")
    prepare.prepare(request_of(tokenizer=str(tmp_path / "broken")))


def test_text_key_names_another_column(request_of):
    content = lines({"body": text(1, 60), "prompt": "a", "response": "b"})
    (request_of.folder / "train.jsonl").write_bytes(lines({"body": text(2, 60)}))
    ids, _, _ = held(request_of, content, text_key="body")
    assert ids == [pieces(request_of, (text(1, 60), 1))[0]]
    (request_of.folder / "train.jsonl").write_bytes(lines({"title": "a"}))
    message = refused(request_of(text_key="body"))[0][1]
    assert "the record has title; it needs `body`" in message and "data.text_key" in message


def test_row_ranges(request_of):
    path = str(request_of.folder / "train.jsonl")
    request = request_of(train=[path + "[20:]"], validation=[path + "[:5]", path + "[7:9]"])
    shards = shards_of(prepare.prepare(request))
    expected = [pieces(request_of, (text(n), 1))[0] for n in range(60)]
    assert shards["train"] == expected[20:]
    assert shards["validation"] == expected[:5] + expected[7:9]
    assert refused(request_of(train=[path + "[5:5]"]))[0][1].startswith(path + "[5:5] names no row")
    assert "or other rows" in refused(request_of(train=[path + "[90:]"]))[0][1]
    for rows in ("[:10%]", "[train]", "[1:2:3]"):
        assert "two whole numbers" in refused(request_of(train=[path + rows]))[0][1]


# ---------------------------------------------------------------- weights


def test_weighted_sources_are_shards_of_their_own(request_of):
    folder = request_of.folder
    (folder / "b.jsonl").write_bytes(lines({"prompt": text(70), "response": text(71)}, *[
        {"prompt": text(n), "response": text(n)} for n in range(80, 100)
    ]))  # fmt: skip
    train = [str(folder / "train.jsonl"), str(folder / "b.jsonl")]
    result = prepare.prepare(request_of(train=train, weights=[3, 1], max_documents=15))
    manifest = json.load(open(result["tokens"] + "/manifest.json"))
    shards = manifest["train_shards"]
    assert [(s["name"], s["weight"], s["masked"]) for s in shards] == [
        ("train-0", 3, False), ("train-1", 1, True)
    ]  # fmt: skip
    assert sum(s["documents"] for s in shards) == manifest["documents"]["train"]
    assert manifest["documents"]["train"] + manifest["documents"]["validation"] == 30
    for shard in shards:
        ids = token_shards.read_shard(f"{result['tokens']}/{shard['name']}")
        assert sum(map(len, ids)) == shard["tokens"]
    other = prepare.prepare(request_of(train=train, weights=[1, 1], max_documents=15))
    assert other["tokens"] != result["tokens"]


@pytest.mark.parametrize(
    "weights, field",
    [
        ([1, 2], "data.weights"),
        ([0], "data.weights[0]"),
        ([-1.5], "data.weights[0]"),
        ([float("nan")], "data.weights[0]"),
    ],
)
def test_bad_weights(request_of, weights, field):
    assert refused(request_of(weights=weights))[0][0] == field


def test_a_weighted_source_that_is_too_short_is_named(request_of):
    (request_of.folder / "short.jsonl").write_bytes(lines({"text": "short"}, {"text": "shorter"}))
    train = [request_of()["train"][0], str(request_of.folder / "short.jsonl")]
    assert refused(request_of(train=train, weights=[1, 1]))[0][0] == "data.train[1]"


# ---------------------------------------------------------------- Parquet and Arrow


def write_table(make, name):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    texts = [text(n) for n in range(5)] + [None]
    table = pyarrow.table({"id": list(range(6)), "text": texts})
    path = make.folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path, row_group_size=2)
    elif name == "saved":
        path.mkdir()
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))
        write_stream(pyarrow, table, path / "a.arrow")
    elif name == "file.arrow":
        with pyarrow.OSFile(str(path), "wb") as sink:
            with pyarrow.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=2)
    else:
        write_stream(pyarrow, table, path)
    return str(path)


def write_stream(pyarrow, table, path):
    with pyarrow.OSFile(str(path), "wb") as sink:
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)


@pytest.mark.parametrize("name", ["t.parquet", "stream.arrow", "file.arrow", "saved"])
def test_columnar_files_are_read_row_by_row(request_of, name):
    path = write_table(request_of, name)
    expected = [pieces(request_of, (text(n), 1))[0] for n in range(5)]
    shards = shards_of(prepare.prepare(request_of(validation=[path + "[:5]"])))
    assert shards["validation"] == expected
    refusal = refused(request_of(validation=[path]))
    assert "row 5: the record has" in refusal[0][1]


def test_columns_of_conversations(chat_request):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path = str(chat_request.folder / "talk.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"messages": [TALK * 2] * 3}), path)
    shards = shards_of(prepare.prepare(chat_request(validation=[path])))
    ids, _, _ = held(chat_request, lines(*[{"messages": TALK * 2}] * 3))
    assert shards["validation"] == ids


@pytest.mark.parametrize(
    "name, content, words",
    [("a.parquet", b"PAR1 no", "cannot be read"), ("a.arrow", b"no arrow", "cannot be read")],
)
def test_broken_columnar_files(request_of, name, content, words):
    pytest.importorskip("pyarrow")
    (request_of.folder / name).write_bytes(content)
    assert words in refused(request_of(train=[str(request_of.folder / name)]))[0][1]


def test_without_pyarrow_the_message_says_how_to_install(request_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (request_of.folder / "a.parquet").write_bytes(b"PAR1")
    message = refused(request_of(train=[str(request_of.folder / "a.parquet")]))[0][1]
    assert "pip install -r deploy/requirements-parquet.txt" in message


@pytest.mark.parametrize(
    "state, words",
    [
        ("{", "state.json"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "outside"),
        ('{"_data_files": [], "_indices_files": ["i.arrow"]}', "flatten_indices"),
    ],
)
def test_odd_folders(request_of, state, words):
    folder = request_of.folder / "odd"
    folder.mkdir()
    (folder / "state.json").write_text(state)
    assert words in refused(request_of(train=[str(folder)]))[0][1]


# ---------------------------------------------------------------- token shards as sources


def test_a_jobs_tokens_are_a_source(request_of):
    content = lines(*[{"prompt": text(n), "response": text(n + 1)} for n in range(40)])
    ids, labels, folder = held(request_of, content)
    again = prepare.prepare(
        request_of(validation=[folder + "/validation.bin[2:]"], train=[folder + "/train.bin"])
    )
    assert shards_of(again)["validation"] == ids[2:]
    assert shards_of(again)["train"] == token_shards.read_shard(folder + "/train")
    assert token_shards.read_shard(again["tokens"] + "/validation.mask") == labels[2:]
    assert not os.path.exists(again["tokens"] + "/train.mask.bin")
    split = prepare.prepare(request_of(train=[folder + "/validation.bin"]))
    assert sorted(sum(shards_of(split).values(), [])) == sorted(ids)


def break_shard(folder, name):
    if name == "tokenizer":
        manifest = json.load(open(folder + "/manifest.json"))
        manifest["tokenizer_sha256"] = "another"
        json.dump(manifest, open(folder + "/manifest.json", "w"))
    elif name == "manifest":
        os.remove(folder + "/manifest.json")
    elif name == "cut":
        os.truncate(folder + "/train.bin", 10)
    elif name == "index":
        os.truncate(folder + "/train.idx", 40)


@pytest.mark.parametrize(
    "name, words",
    [
        ("tokenizer", "made with another tokenizer"),
        ("manifest", "manifest.json"),
        ("cut", "its index promises"),
        ("index", "not a Megatron index"),
    ],
)
def test_shards_that_do_not_fit(request_of, name, words):
    folder = prepare.prepare(request_of(cache=str(request_of.folder / "other")))["tokens"]
    break_shard(folder, name)
    violations = refused(request_of(train=[folder + "/train.bin"]))
    assert violations[0][0] == "data.train[0]" and words in violations[0][1]


# ---------------------------------------------------------------- the format, read independently


def read_as_megatron(prefix):
    """As megatron-core's IndexedDataset reads: header, lengths, pointers, document indices."""
    index = open(prefix + ".idx", "rb").read()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code = struct.unpack_from("<QB", index, 9)
    assert version == 1
    sequences, indices = struct.unpack_from("<QQ", index, 18)
    lengths = struct.unpack_from(f"<{sequences}i", index, 34)
    pointers = struct.unpack_from(f"<{sequences}q", index, 34 + 4 * sequences)
    documents = struct.unpack_from(f"<{indices}q", index, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * indices
    assert documents == tuple(range(sequences + 1))
    letter, width = {1: ("B", 1), 4: ("i", 4), 8: ("H", 2)}[code]
    data = open(prefix + ".bin", "rb").read()
    assert len(data) == width * sum(lengths)
    return [list(struct.unpack_from(f"<{n}{letter}", data, p)) for n, p in zip(lengths, pointers)]


def test_ids_and_masks_read_as_megatron_reads_them(request_of, monkeypatch):
    monkeypatch.setattr(token_shards, "INDEX_BLOCK", 7)
    (request_of.folder / "train.jsonl").write_bytes(
        lines(*[{"prompt": text(n), "response": text(n + 1)} for n in range(60)])
    )
    result = prepare.prepare(request_of(validation_fraction=0.4))
    for split in ("train", "validation"):
        prefix = f"{result['tokens']}/{split}"
        ids, mask = read_as_megatron(prefix), read_as_megatron(prefix + ".mask")
        assert ids == token_shards.read_shard(prefix) and ids
        assert [len(part) for part in ids] == [len(part) for part in mask]
        assert all(set(part) == {0, 1} and part[0] == 0 and part[-1] == 1 for part in mask)


def test_the_first_documents_of_a_shard(request_of):
    prefix = prepare.prepare(request_of())["tokens"] + "/train"
    whole = token_shards.read_shard(prefix)
    first = token_shards.read_shard(prefix, 1000)
    assert first == whole[: len(first)] and 1000 <= sum(map(len, first)) < 1000 + max(
        map(len, whole)
    )
    assert token_shards.read_shard(prefix, 10**9) == whole
