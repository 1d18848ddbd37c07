"""Converted suites ask what lm-evaluation-harness asks: its own task definitions, on rows in the columns of the hub's
data sets, give the same contexts, continuations, answers and lengths. Nothing is fetched."""

import os
from pathlib import Path

import pytest
from tandem import convert_suite
from tandem.suite_files import CHOICE_METRICS
from tandem.suite_requests import texts_of

numpy = pytest.importorskip("numpy")
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
import pyarrow.parquet  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

TASKS = Path(lm_eval.__file__).parent / "tasks"
SCIENCE = {"text": ["the sun", " a stone ", "both, of course"], "label": ["A", "B", "C"]}
NUMBERED = {"text": ["one", "two"], "label": ["1", "2"]}

# suite: (the task's definition, rows in the hub's columns). Blanks, capitals, empty parts and brackets as they occur.
PUBLISHED = {
    "piqa": ("piqa/piqa.yaml", [
        {"goal": "Dry  it ", "sol1": "in the sun", "sol2": "rain", "label": 1},
        {"goal": "How do I wash?", "sol1": " soap ", "sol2": "so", "label": 0},
    ]),
    "arc_easy": ("arc/arc_easy.yaml", [
        {"id": "1", "question": "What shines? ", "choices": SCIENCE, "answerKey": "C"},
        {"id": "2", "question": "How\nmany?", "choices": NUMBERED, "answerKey": "2"},
    ]),
    "arc_challenge": ("arc/arc_challenge.yaml", [
        {"id": "1", "question": "What shines?", "choices": SCIENCE, "answerKey": "A"},
    ]),
    "hellaswag": ("hellaswag/hellaswag.yaml", [
        {"ind": 1, "activity_label": "Baking", "ctx_a": "A man bakes.  He", "ctx_b": "then He", "ctx": "",
         "endings": ["eats [title] it.", " [step] goes  away", "x", "sleeps. "], "label": "3"},
        {"ind": 2, "activity_label": "How to bake", "ctx_a": "[header] Flour [title] Take it. [step] Mix", "ctx_b": "",
         "ctx": "", "endings": ["[substeps] a", "b", "c", "d"], "label": "0"},
    ]),
    "winogrande": ("winogrande/default.yaml", [
        {"sentence": "Ann met Eve since _ was late.", "option1": "Ann", "option2": "Eve", "answer": "2"},
        {"sentence": "_ 's dog_ate.", "option1": "Bo", "option2": "Al", "answer": "1"},
    ]),
    "openbookqa": ("openbookqa/openbookqa.yaml", [
        {"id": "1", "question_stem": "The sun", "choices": SCIENCE, "answerKey": "B"},
        {"id": "2", "question_stem": "Count to ", "choices": NUMBERED, "answerKey": " 1"},
    ]),
    "boolq": ("super_glue/boolq/default.yaml", [
        {"question": "is it so", "passage": "Title -- It is. ", "idx": 0, "label": 1},
        {"question": "was it", "passage": "No", "idx": 1, "label": 0},
    ]),
    "lambada": ("lambada/lambada_openai.yaml", [
        {"text": "She took  the last train"},
        {"text": "one\ntwo, \"three\" four's end"},
    ]),
}  # fmt: skip


SUBJECTS = ("anatomy", "high_school_us_history")
MMLU = {
    subject: [
        {"question": f" {subject} {i}? ", "subject": subject, "choices": ["a", " b", "c ", "d"], "answer": i % 4}
        for i in range(7)
    ]
    for subject in SUBJECTS
}


def parquet(folder, split, rows):
    """A split as the hub names its file."""
    path = folder / f"{split}-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def harness_task(definition, files, **changes):
    """The harness's task with its own prompts and scoring, on these files."""
    config = load_yaml(TASKS / definition)
    config.update(
        dataset_path="parquet", dataset_name=None, dataset_kwargs={"data_files": files}, **changes
    )
    return ConfigurableTask(config=config)


def expect_same(task, metric, items):
    """The same requests; and whatever the log-probabilities, the same items are right."""
    task.build_all_requests(rank=0, world_size=1)
    theirs = {}
    for instance in task.instances:
        theirs.setdefault(instance.doc_id, []).append(instance)
    assert len(theirs) == len(items)
    described = [texts_of(metric, item) for item in items]
    assert [pairs for pairs, _ in described] == [
        [instance.args for instance in theirs[i]] for i in range(len(items))
    ]
    if metric not in CHOICE_METRICS:
        return
    random = numpy.random.default_rng(1)
    for item, (_, lengths), instances in zip(items, described, theirs.values()):
        for draw in range(60):
            far, near = random.random(len(lengths)), 0.01 * random.random(len(lengths))
            # Every other time choices that only their exact lengths tell apart.
            logits = -20 * far if draw % 2 else -(1 + near) * lengths
            scores = task.process_results(instances[0].doc, [(x, False) for x in logits])
            assert scores["acc"] == (numpy.argmax(logits) == item["answer"])
            if metric == "acc_norm":
                assert scores["acc_norm"] == (numpy.argmax(logits / lengths) == item["answer"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_requests_and_scores(tmp_path, name):
    definition, rows = PUBLISHED[name]
    path = parquet(tmp_path, "test", rows)
    files = {split: path for split in ("train", "validation", "test")}
    items = convert_suite.items(name, [path])
    expect_same(harness_task(definition, files), convert_suite.SUITES[name][1], items)


def test_mmlu_with_five_examples(tmp_path):
    files = {
        "dev": parquet(tmp_path, "dev", [row for subject in SUBJECTS for row in MMLU[subject]]),
        "test": parquet(tmp_path, "test", [row for s in SUBJECTS for row in MMLU[s][::-1]]),
    }
    items = convert_suite.items("mmlu", list(files.values()))
    for subject in SUBJECTS:
        (tmp_path / subject).mkdir()
        alone = {
            "dev": parquet(tmp_path / subject, "dev", MMLU[subject]),
            "test": parquet(tmp_path / subject, "test", MMLU[subject][::-1]),
        }
        task = harness_task(f"mmlu/default/mmlu_{subject}.yaml", alone, num_fewshot=5)
        expect_same(task, "acc", [item for item in items if item["group"] == subject])


def test_mmlu_introduces_every_subject_as_the_harness_does(tmp_path):
    definitions = sorted((TASKS / "mmlu" / "default").glob("mmlu_*.yaml"))
    assert len(definitions) == 57
    for definition in definitions:
        described = load_yaml(definition)
        rows = [{**row, "subject": described["dataset_name"]} for row in MMLU["anatomy"]]
        path = parquet(tmp_path, "dev", rows)
        test = parquet(tmp_path, "test", rows[:1])
        (item,) = convert_suite.items("mmlu", [path, test])
        assert item["context"].startswith(described["description"] + "anatomy 0?")
