"""Suite files: a benchmark's questions, as tandem.convert_suite makes them of its published files.

JSONL, also .gz, .xz or .zst. The first line describes the suite:

    {"suite": "piqa", "metric": "acc"}     metric: acc, acc_norm, lambada, exact, perplexity

Each further line is an item:

    acc, acc_norm    {"context": "Question: ...\\nAnswer:", "choices": ["a", "b"], "answer": 0}
                     or, the same words behind several contexts (WinoGrande),
                     {"contexts": ["...", "..."], "continuation": "shared end", "answer": 1}
    lambada, exact   {"context": "...", "continuation": " word"}: right when it is what the model
                     would say, token by token
    perplexity       {"text": "..."}; "words" and "bytes" where they are not those of the text

A blank stands between context and choice; `continuation` of lambada and exact has its own. Items
may carry "group": the suite's score is then the mean over the groups (MMLU: over its subjects).
"""

from tandem.documents import guarded_blocks, numbered_lines, split_name
from tandem.record_forms import json_name, parse_line
from tandem.violations import BadDocument, BadFile

METRICS = ("acc", "acc_norm", "lambada", "exact", "perplexity")
CHOICE_METRICS = ("acc", "acc_norm")


def read_suite(path, field, violations):
    """(header, generator of items); None after a violation, which the generator also adds."""
    try:
        kind, compression = split_name(path)
        if kind != ".jsonl":
            raise BadFile(f"{path} must be a suite in .jsonl, as tandem.convert_suite writes it")
        lines = numbered_lines(path, guarded_blocks(path, compression))
        number, line = next(lines, (1, b"null"))
        header = parse_line(line)
        check_header(header, path)
    except (BadFile, BadDocument) as problem:
        violations.add(field, str(problem))
        return None
    return header, items_of(header, path, lines, field, violations)


def check_header(header, path):
    named = isinstance(header, dict) and isinstance(header.get("suite"), str)
    if not named or header.get("metric") not in METRICS:
        raise BadFile(
            f'{path}: the first line must be {{"suite": name, "metric": '
            f"{' | '.join(METRICS)}}}; tandem.convert_suite writes it"
        )


def items_of(header, path, lines, field, violations):
    try:
        for number, line in lines:
            try:
                yield checked_item(header["metric"], parse_line(line))
            except BadDocument as problem:
                violations.add(field, f"{path}, line {number}: {problem}")
                if violations.full(field):
                    return
    except BadFile as problem:
        violations.add(field, str(problem))


def checked_item(metric, item):
    """The item, if it has what its metric needs. Raises BadDocument."""
    if not isinstance(item, dict):
        raise BadDocument(f"a JSON {json_name(item)}; an object is needed")
    if metric == "perplexity":
        needed, options = {"text": str}, None
    elif metric not in CHOICE_METRICS:
        needed, options = {"context": str, "continuation": str}, None
    elif "contexts" in item:
        needed, options = {"contexts": list, "continuation": str}, "contexts"
    else:
        needed, options = {"context": str, "choices": list}, "choices"
    for key, kind in needed.items():
        check_value(item, key, kind)
    if options is None:
        return item
    if len(item[options]) < 2 or "" in item.get("choices", []):
        raise BadDocument(f"`{options}` must be two or more, no choice empty")
    answer = item.get("answer")
    if type(answer) is not int or not 0 <= answer < len(item[options]):
        raise BadDocument(f"`answer` is {answer!r}; must be in [0, {len(item[options])})")
    return item


def check_value(item, key, kind):
    value = item.get(key)
    if not isinstance(value, kind) or key == "continuation" and not value:
        wanted = "list of strings" if kind is list else "string"
        raise BadDocument(f"`{key}` is {value!r:.60}; a {wanted} is needed")
    if kind is list and not all(isinstance(entry, str) for entry in value):
        raise BadDocument(f"`{key}` must be a list of strings")


def first_of_each_group(items, limit):
    """The first `limit` items of each group; all with 0."""
    taken = {}
    for item in items:
        group = item.get("group")
        taken[group] = taken.get(group, 0) + 1
        if not limit or taken[group] <= limit:
            yield item
