"""Long-range prompts beside passkey.py's: needles, associative recall, key-value retrieval.

    needle      BOS filler NEEDLE filler(distance tokens) QUESTION " N": one sentence in `length`
                tokens, `distance` before its question, or at `depth` (0: the beginning, 1: just
                before the question)
    recall      BOS fact filler fact filler ... question answer question answer ...: `facts` facts,
                all of them asked for, in another order
    key_value   BOS {"key": "value", ...} question answer: one of `pairs` pairs, in the form of
                "Lost in the Middle" (Liu et al. 2023)

Request: "needle": {"prompts", "distances": [...], "depths": [...], "lengths" or "length"},
"recall": {"prompts", "facts": [...], "length"}, "key_value": {"prompts", "pairs": [...], "length"}.
Without a length: data.sequence_length. Filler is held-out text; recall and key_value without room
for filler are as long as they are. All is drawn from the seed and the prompt's name alone.

long_range.json: {"version": 1, "prompts": [{"kind", "length": number of ids, "ids", "facts" |
"pairs" | "depth", "answers": [{"start", "length", "distance"}]}]}. distance: tokens between the end
of the sentence that has the answer and its question. Scored teacher-forced: an answer counts when
each of its tokens is the argmax of the logits one position before.
"""

from tandem.passkey import cut, draw, shared_start

NEEDLE = "\nThe special number of {key} is {n}. Remember it.\n"
NEEDLE_QUESTION = "\nWhat is the special number of {key}? The special number of {key} is"
FACT = " The {attribute} of {name} is {n}."
FACT_QUESTION = " What is the {attribute} of {name}?"
PAIRS_BEGIN = "Extract the value of the given key from the JSON object below.\n\nJSON data:\n{"
PAIR = '"{key}": "{value}"'
PAIRS_END = "}\n\n"
PAIR_QUESTION = 'Key: "{key}"\nCorresponding value:'
PAIR_ANSWER = ' "{value}"'
ATTRIBUTES = ("seat", "badge", "room", "locker", "ticket", "desk", "code", "number")
NAMES = (
    "Anna Bella Clara Dora Elena Felix Gavin Henry Ivan Julia Karin Leon Marta Nina Oscar Paula "
    "Quentin Rita Simon Tanya Ulric Vera Walter Xenia Yuri Zelda Adrian Bruno Cyrus Diana Edgar "
    "Fiona Greta Holly Igor Jonas Klara Lukas Mona Norman Olga Peter Rosa Stefan Tina Ursula "
    "Victor Wanda Alma Boris Celia David Emil Frida Georg Hanna"
).split()
MOST_FACTS = len(NAMES) * (len(NAMES) + 1)


class NoRoom(Exception):
    """The prompt does not fit into its length."""


def make_long_range(tokenizer, filler, request, violations):
    """long_range.json's content."""
    writer = PromptWriter(tokenizer, filler, request)
    makers = {"needle": needle_prompts, "recall": recall_prompts, "key_value": key_value_prompts}
    prompts = []
    for kind, make in makers.items():
        settings = request.get(kind) or {}
        if not settings.get("prompts"):
            continue
        for field, name, arguments in make(settings, request["sequence_length"]):
            try:
                for index in range(settings["prompts"]):
                    prompt = getattr(writer, kind)(f"{kind}/{name}/{index}", **arguments)
                    prompts.append({"kind": kind, **prompt})
            except NoRoom as problem:
                violations.add(f"evaluate.{kind}.{field}", str(problem))
    return {"version": 1, "prompts": prompts}


def needle_prompts(settings, sequence_length):
    lengths = settings.get("lengths") or [settings.get("length") or sequence_length]
    for length in lengths:
        for distance in settings.get("distances") or []:
            yield "distances", f"{length}/{distance}", {"length": length, "distance": distance}
        for depth in settings.get("depths") or []:
            yield "depths", f"{length}/depth {depth}", {"length": length, "depth": depth}


def recall_prompts(settings, sequence_length):
    length = settings.get("length") or sequence_length
    for facts in settings.get("facts") or []:
        yield "facts", f"{length}/{facts}", {"length": length, "facts": facts}


def key_value_prompts(settings, sequence_length):
    length = settings.get("length") or sequence_length
    for pairs in settings.get("pairs") or []:
        yield "pairs", f"{length}/{pairs}", {"length": length, "pairs": pairs}


class PromptWriter:
    def __init__(self, tokenizer, filler, request):
        self.tokenizer, self.filler, self.seed = tokenizer, filler, request["seed"]
        self.begin = tokenizer.edges()[0]

    def filler_ids(self, name, count):
        return cut(self.filler, draw(f"{self.seed}/{name}/filler", len(self.filler)), count)

    def number(self, name, low, high):
        return low + draw(f"{self.seed}/{name}", high - low)

    def answer_of(self, question, whole):
        """(ids of question and answer, number of the answer's ids)."""
        ids = self.tokenizer.encode(whole)
        return ids, len(ids) - shared_start(self.tokenizer.encode(question), ids)

    def needle(self, name, length, distance=None, depth=None):
        key = NAMES[self.number(name + "/key", 0, len(NAMES))]
        n = self.number(name + "/number", 10000, 100000)
        needle = self.tokenizer.encode(NEEDLE.format(key=key, n=n))
        question = NEEDLE_QUESTION.format(key=key)
        ending, answer_length = self.answer_of(question, f"{question} {n}")
        room = length - len(self.begin) - len(needle) - len(ending)
        if distance is None:
            distance = room - round(depth * room)
        if not 0 <= distance <= room:
            raise NoRoom(
                f"{distance} does not fit into prompts of {length} tokens, of which {max(room, 0)} "
                "are left beside the needle and its question; take a smaller one or a longer length"
            )
        before, text = room - distance, self.filler_ids(name, room)
        ids = self.begin + text[:before] + needle + text[before:] + ending
        start = length - answer_length
        return {
            "length": length,
            "ids": ids,
            "depth": round(before / room, 4) if room else 1.0,
            "answers": [{"start": start, "length": answer_length, "distance": distance}],
        }

    def recall(self, name, length, facts):
        attribute = ATTRIBUTES[self.number(name + "/attribute", 0, len(ATTRIBUTES))]
        people = self.shuffled(name + "/people", all_names(facts))[:facts]
        values = [self.number(f"{name}/value {i}", 100, 1000) for i in range(facts)]
        told = [
            self.tokenizer.encode(FACT.format(attribute=attribute, name=person, n=n))
            for person, n in zip(people, values)
        ]
        asked = []
        for i in self.shuffled(name + "/order", range(facts)):
            question = FACT_QUESTION.format(attribute=attribute, name=people[i])
            ids, answer = self.answer_of(question, f"{question} {values[i]}")
            asked.append((i, ids, answer))
        ids, ends = list(self.begin), []
        gaps = self.gaps(name, length - len(ids) - sum(map(len, told)) - questions(asked), facts)
        for fact, gap in zip(told, gaps):
            ids += fact
            ends.append(len(ids))
            ids += gap
        return {**self.ask(ids, ends, asked, length), "facts": facts}

    def gaps(self, name, room, count):
        """Filler behind each of `count` facts, `room` tokens in all; nothing without room."""
        if room <= 0:
            return [[]] * count
        text = self.filler_ids(name, room)
        edges = [room * i // count for i in range(count + 1)]
        return [text[a:b] for a, b in zip(edges, edges[1:])]

    def ask(self, ids, ends, asked, length):
        """The prompt: questions and answers behind `ids`, whose facts end at `ends`."""
        answers, end = [], self.tokenizer.encode(".")
        for i, question, answer_length in asked:
            begin = len(ids)
            ids = ids + question
            answers.append(
                {
                    "start": len(ids) - answer_length,
                    "length": answer_length,
                    "distance": begin - ends[i],
                }
            )
            ids = ids + end
        if len(ids) > length:
            raise NoRoom(
                f"the prompt would have {len(ids)} tokens, the length is {length}; take fewer or a "
                "longer length"
            )
        return {"length": len(ids), "ids": ids, "answers": answers}

    def key_value(self, name, length, pairs):
        keys = [f"{self.number(f'{name}/key {i}', 1 << 28, 1 << 32):08x}" for i in range(pairs)]
        values = [f"{self.number(f'{name}/value {i}', 1 << 28, 1 << 32):08x}" for i in range(pairs)]
        asked = self.number(name + "/asked", 0, pairs)
        ids = self.begin + self.tokenizer.encode(PAIRS_BEGIN)
        end = 0
        for i, (key, value) in enumerate(zip(keys, values)):
            last = i + 1 == pairs
            ids = ids + self.tokenizer.encode(
                PAIR.format(key=key, value=value) + (PAIRS_END if last else ",\n")
            )
            end = len(ids) if i == asked else end
        question = PAIR_QUESTION.format(key=keys[asked])
        whole, answer = self.answer_of(question, question + PAIR_ANSWER.format(value=values[asked]))
        return {**self.ask(ids, [end], [(0, whole, answer)], length), "pairs": pairs}

    def shuffled(self, name, things):
        return [
            thing
            for _, thing in sorted(
                (draw(f"{self.seed}/{name}/{i}", 1 << 62), thing) for i, thing in enumerate(things)
            )
        ]


def questions(asked):
    """Their tokens, with a full stop of at most two behind each."""
    return sum(len(ids) + 2 for _, ids, _ in asked)


def all_names(count):
    """At least `count` names: the first ones alone, then with a second one."""
    if count > MOST_FACTS:
        raise NoRoom(f"{count} facts; there are names for {MOST_FACTS}")
    seconds = range(max(0, count - len(NAMES)))
    return NAMES + [f"{NAMES[i % len(NAMES)]} {NAMES[i // len(NAMES)]}" for i in seconds]
