"""A training run and the steps of its text half; each caches what it made. Fits no head."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model import checkpoint
from model.config import SelectionConfig, TextConfig
from model.data import datasets
from model.data.corpus import Corpus, tables
from model.encoders import Embeddings
from model.errors import ModelError
from model.int8 import to_int8
from model.network import TextDecider, TextSelector
from model.records import CLASSES
from model.training import pretrained, reading, teacher, train_text
from model.training.evidence import decisive_words
from model.training.masked_texts import MaskedText, Teach
from model.training.reading import ReaderSettings
from model.training.teacher import LargeKit
from model.training.text_kit import TextKit, Texts
from model.training.train_text import RECIPE, SelectorLosses

COMPACT, DUAL = "compact", "dual"
SELECTION = SelectionConfig(
    space_width=128, word_threshold=0.4, max_word_share=0.35, min_words=4, n_patches=14, beta=0.5, n_steps=5
)
READER = ReaderSettings(
    n_humaid=12_000, n_disagreed=8_700, n_epochs=2, warm_up_rate=2e-4, learning_rate=1.2e-4, batch_size=24
)
_MAX_TOKENS, _WIDTH = 128, 384


class StaleCache(ModelError):
    """Finished steps of another training, which must not go into this one; the message names the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run: where things are and the seed everything derives from."""

    data: Path
    weights: Path
    cache: Path
    seed: int

    def claim(self, held_out_events: Collection[str] = ()) -> None:
        """Take the cache for this seed, tables and weights; raises `StaleCache` when it was filled from others."""
        made_from = {
            "seed": self.seed,
            "data": datasets.digest(self.data, tables(self.data)),
            "weights": pretrained.weights_digest(self.weights),
            "held_out_events": sorted(held_out_events),
        }
        note = self.cache / "made_from.json"
        if not any(self.cache.iterdir()):
            note.write_text(json.dumps(made_from, indent=1) + "\n", encoding="utf-8")
        before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        for name, value in made_from.items():
            if before.get(name) != value:
                raise StaleCache(
                    f"{self.cache} was filled with {name} {before.get(name)!r}, not {value!r}: give another --out, or"
                    " remove that folder"
                )

    def cached(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a finished step, or the step's result, kept for the next run."""
        path = self.cache / f"{name}.safetensors"
        if not path.exists():
            partial = path.with_suffix(".partial")
            save_file({key: value.contiguous().clone() for key, value in make().items()}, partial)
            partial.rename(path)
        return load_file(path)

    def trained(self, name: str, module: nn.Module, make: Callable[[], nn.Module]) -> None:
        """Fills the module with the weights of a finished step."""
        module.load_state_dict(self.cached(name, lambda: dict(make().state_dict())))
        module.eval()


def run_parser(description: str | None) -> ArgumentParser:
    """Return the command line that every training has; it may be added to."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training tables and images")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the unpacked pretrained packages")
    parser.add_argument("--out", type=Path, required=True, help="gets cache/, from where an interrupted run goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def measure_from_command_line(description: str | None, measure: Callable[[Run, Path], None]) -> None:
    """Train what is missing and put what `measure` finds into the file of figures, as the command line says."""
    parser = run_parser(description)
    parser.add_argument("--summary", type=Path, required=True, help="the file of figures")
    args = parser.parse_args()
    measure(run_of(args), args.summary)


def run_of(args: Namespace) -> Run:
    """Return the run that such a command line asks for, its cache made and torch's threads set."""
    torch.set_num_threads(args.threads)
    run = Run(data=args.data, weights=args.weights, cache=args.out / "cache", seed=args.seed)
    run.cache.mkdir(parents=True, exist_ok=True)
    return run


def fit_text_stages(run: Run, corpus: Corpus, kit: TextKit, *, taught: bool = True) -> Texts:
    """Both text stages; a reader comes first, which says what evidence is and from which stage 2 starts.

    Unless `taught`, they learn from the labels alone, without a teacher.
    """
    reader = fit_reader(run, corpus, kit, taught=taught)
    selector = fit_selector(run, corpus, kit, reader)
    decider = TextDecider(kit.config, len(CLASSES))
    teach = teach_from(run, corpus, "taught_rationales") if taught else None

    def fit() -> TextDecider:
        return train_text.fit_text_decider(corpus, stored(kit), selector, reader, run.seed, teach)

    run.trained("text_decider", decider, fit)
    return Texts(kit=stored(kit), reader=reader, selector=selector, decider=decider)


def fit_teacher(run: Run, corpus: Corpus) -> LargeKit:
    """The large reader from which the shipped one learns."""
    torch.manual_seed(run.seed)
    kit = teacher.make_kit(pretrained.mpnet_folder(run.weights))
    run.trained("teacher", kit.reader, lambda: teacher.fit(corpus, kit, run.seed))
    return kit


def teach_from(run: Run, corpus: Corpus, name: str) -> Teach:
    """Asks the teacher for soft labels, once; they are cached under the name."""

    def teach(texts: Sequence[MaskedText]) -> Tensor:
        made = run.cached(name, lambda: {"probs": teacher.read(texts, fit_teacher(run, corpus)).exp()})
        return made["probs"]

    return teach


def fit_reader(run: Run, corpus: Corpus, kit: TextKit, *, taught: bool = True) -> TextDecider:
    """The class model of whole texts and of any part of them."""
    reader = TextDecider(kit.config, len(CLASSES))
    teach = teach_from(run, corpus, "taught_texts") if taught else None
    run.trained("text_reader", reader, lambda: reading.fit_reader(corpus, kit, run.weights, READER, run.seed, teach))
    return reader


def fit_selector(
    run: Run,
    corpus: Corpus,
    kit: TextKit,
    reader: TextDecider,
    losses: SelectorLosses = RECIPE,
    name: str = "text_selector",
) -> TextSelector:
    """Stage 1 of texts; with other losses than the recipe's it needs a name of its own in the cache."""
    selector = TextSelector(kit.config, SELECTION.space_width, len(CLASSES))

    def fit() -> TextSelector:
        decisive = find_decisive_words(run, corpus, kit, reader)
        return train_text.fit_text_selector(corpus, kit, reader, decisive, run.seed, losses)

    run.trained(name, selector, fit)
    return selector


def find_decisive_words(run: Run, corpus: Corpus, kit: TextKit, reader: TextDecider) -> list[list[int]]:
    """The words from which the reader decides, by their place in each official training post, best first."""

    def find() -> dict[str, Tensor]:
        found = decisive_words([kit.tokenizer.split(row.text) for row in corpus.train], kit, reader)
        places = [torch.tensor(words, dtype=torch.long) for words in found]
        return {"places": nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)}

    places = run.cached("decisive_words", find)["places"]
    return [[place for place in row if place >= 0] for row in places.tolist()]


def as_served(texts: Texts) -> Texts:
    """Selector and decider as a checkpoint stores and runs them."""
    decider = to_int8(checkpoint.as_stored(texts.decider))
    return replace(texts, selector=checkpoint.as_stored(texts.selector), decider=decider)


def stored(kit: TextKit) -> TextKit:
    """The kit with its wordpiece vectors as a checkpoint gives them back."""
    return replace(kit, embeddings=checkpoint.as_stored(kit.embeddings))


def make_kit(run: Run, corpus: Corpus) -> TextKit:
    path = run.cache / "vocabulary.json"
    if not path.exists():
        made = train_text.make_vocabulary(corpus, run.weights, _MAX_TOKENS)
        path.write_text(json.dumps(made), encoding="utf-8")
    tokenizer_json, kept_ids = json.loads(path.read_text(encoding="utf-8"))
    embeddings = Embeddings(len(kept_ids), _MAX_TOKENS, _WIDTH)
    pretrained.fill_embeddings(embeddings, pretrained.minilm_state(run.weights), kept_ids)
    text = TextConfig(
        n_pieces=len(kept_ids),
        max_tokens=_MAX_TOKENS,
        width=_WIDTH,
        n_heads=12,
        ff_width=1536,
        n_selector_layers=6,
        n_decider_layers=6,
        gru_width=128,
    )
    return TextKit(
        tokenizer=train_text.tokenizer_from_json(tokenizer_json, _MAX_TOKENS),
        tokenizer_json=tokenizer_json,
        embeddings=embeddings.requires_grad_(False).eval(),
        config=text,
        selection=SELECTION,
    )
