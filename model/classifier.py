"""The public classifier: selects a rationale, blanks the rest, decides from what is left; never trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model import checkpoint, int8, patches
from model.config import Fusion, ModelConfig, TaskConfig
from model.errors import ModelError
from model.inputs import EncodedExample, encode_example, pixel_values_of, tokens_of, words_of
from model.network import Network, TextSelection, head_of
from model.precision import is_bf16_fast
from model.records import HUMANITARIAN, IMAGE_EDGE_PX, Example, ImageRationale, Pixels, Prediction, TextSpan
from model.selection import WordLimits, best_piece, choose_words
from model.text import Word
from model.tokens import Tokens, WordTokenizer
from model.transfer import Space, is_flat, meet, transport, word_vectors
from model.triage import damage_or_casualties_prob

NO_RATIONALE_TOKEN, TEXT_TRUNCATED = "no_rationale_token", "text_truncated"
NO_TEXT, NO_IMAGE, NO_EVIDENCE = "no_text", "no_image", "no_evidence"
FLAT_HEATMAP = "flat_heatmap"  # the words told no patch from another, as a single one does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Stage 1's choice. Word indices count the post's whitespace-delimited words; patches are row-major."""

    word_scores: tuple[float, ...]
    words: tuple[int, ...]
    patch_scores: tuple[float, ...]
    patches: tuple[int, ...]
    fallbacks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that stage 2 reads: wordpieces with `*` for hidden words, and pixels that are grey elsewhere."""

    input_ids: Tensor | None  # (1, T)
    pixel_values: Tensor | None  # (1, 3, S, S)
    patch_mask: Tensor | None  # (1, P)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenWords:
    """Stage 1's choice of words, before any image is looked at."""

    word_scores: tuple[float, ...]
    words: tuple[int, ...]
    fallbacks: tuple[str, ...]

    def with_patches(self, scores: tuple[float, ...], picked: tuple[int, ...], *fallbacks: str) -> Selection:
        """The whole choice, from the patches' scores, those that are chosen, and the image's own fallbacks."""
        nothing = () if self.words or picked else (NO_EVIDENCE,)
        return Selection(
            word_scores=self.word_scores,
            words=self.words,
            patch_scores=scores,
            patches=picked,
            fallbacks=(*self.fallbacks, *fallbacks, *nothing),
        )


class DecidesTasks(Protocol):
    """Any classifier whose config names its tasks."""

    config: Any

    def select(self, example: Example) -> Selection: ...

    def mask(self, example: Example, selection: Selection) -> Any: ...

    def decide_tasks(self, evidence: Any, tasks: Sequence[str] | None = None) -> dict[str, npt.NDArray[np.float64]]: ...


class RationaleClassifier:
    """A loaded checkpoint. One example at a time, so its bytes never depend on what shares the call."""

    spares_image_rationale = True  # heeds an example that asks for none
    image_edge_px = IMAGE_EDGE_PX

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        tokenizer: WordTokenizer,
        *,
        device: str = "cpu",
        exact: bool = False,
    ) -> None:
        self.network = network.to(device).eval()
        if device == "cpu" and not exact:
            _quicken(self.network)
        self.tokenizer = tokenizer
        self._device = device
        self.config = config
        self.name = config.name
        self.version = config.version
        self.digest = f"sha256:{config.weights_sha256}"
        self.classes = tuple(config.classes)
        self.languages = tuple(config.languages)
        self.alert_threshold = config.alert_threshold

    @classmethod
    def load(cls, path: Path, *, device: str = "cpu", n_threads: int | None = None, exact: bool = False) -> Self:
        """Reads a checkpoint folder or raises `CheckpointError`; n_threads is set for the whole process.

        `exact` keeps to float32 products where int8 and bf16 would be quicker.
        """
        if n_threads is not None:
            torch.set_num_threads(n_threads)
        network, config, tokenizer = checkpoint.load(Path(path))
        return cls(network, config, tokenizer, device=device, exact=exact)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order. Equal examples give equal bytes; raises `ModelError`, never NaN."""
        return [self._predict_one(example) for example in examples]

    def predict_tasks(self, examples: Sequence[Example]) -> list[dict[str, dict[str, float]]]:
        """Class probabilities of every task of `config.tasks`, from the same evidence."""
        return task_probs(self, examples)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """The examples with their share of `predict` that needs no weights done ahead, in whichever thread."""
        return [encode_example(example, self.tokenizer, self.config.image.size_px) for example in examples]

    def triage(self, texts: Sequence[str]) -> list[float]:
        """How likely each text tells of damage or casualties, by stage 1 alone; for an order, never for a label."""
        return damage_or_casualties_prob(self.network, self.tokenizer, texts, device=self._device)

    @torch.inference_mode()
    def select(self, example: Example) -> Selection:
        """Stage 1: which words and which patches are the rationale."""
        words = words_of(example, self.tokenizer)
        chosen, vectors = no_words(words), None
        if any(word.selectable for word in words):
            tokens, stage = self._read(example)
            probs = _finite(stage.token_logits[0].sigmoid()).tolist()
            chosen = choose_from(words, tokens, probs, self.config.selection)
            vectors = word_vectors(tokens, stage)  # (1, W, E)
        if example.image is None:
            return chosen.with_patches((), (), NO_IMAGE)
        if not example.image_rationale:
            patches.check_image(example.image)
            return chosen.with_patches((), self._spread_patches())
        n_patches = self.config.selection.n_patches
        scores = self._score_patches(example, example.image, vectors, chosen.words)
        flat = bool(chosen.words) and is_flat(scores, n_patches)
        if flat:
            scores = self._score_patches(example, example.image, None, ())
        return choose_patches(chosen, scores, n_patches, flat=flat)

    @torch.inference_mode()
    def space(self, example: Example, selection: Selection) -> Space:
        """Where the example's words and patches met, for other ways to score patches; needs an image."""
        assert example.image is not None
        words = () if FLAT_HEATMAP in selection.fallbacks else selection.words
        vectors = word_vectors(*self._read(example)) if words else None
        return self._meet(example, example.image, vectors, words)

    def mask(self, example: Example, selection: Selection) -> Evidence:
        """What stage 2 may read of the example; every other word and pixel is gone."""
        input_ids = pixel_values = patch_mask = None
        if selection.words:
            words = words_of(example, self.tokenizer)
            input_ids = self._ids(self.tokenizer.encode_selected(words, selection.words))
        if selection.patches and example.image is not None:
            grid = self.config.image
            kept = patches.blank_others(example.image, grid.rows, grid.cols, selection.patches)
            pixel_values = patches.to_pixel_values(kept, grid.size_px)[None].to(self._device)
            patch_mask = torch.zeros(1, grid.rows * grid.cols, dtype=torch.bool, device=self._device)
            patch_mask[0, list(selection.patches)] = True
        return Evidence(input_ids=input_ids, pixel_values=pixel_values, patch_mask=patch_mask)

    def decide(self, evidence: Evidence) -> npt.NDArray[np.float64]:
        """Stage 2: calibrated class probabilities (5,) from the evidence alone."""
        return self.decide_tasks(evidence, (HUMANITARIAN,))[HUMANITARIAN]

    @torch.inference_mode()
    def decide_tasks(
        self, evidence: Evidence, tasks: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The same for some tasks of `config.tasks`, or for all of them, (C,) each; the evidence is read once."""
        network, text, image = self.network, None, None
        if evidence.input_ids is not None:
            text = network.text_decider.pool(network.embeddings(evidence.input_ids))
        if evidence.pixel_values is not None and evidence.patch_mask is not None:
            image = network.image_decider.pool(evidence.pixel_values, evidence.patch_mask)
        return {
            task: fuse(
                self.config if task == HUMANITARIAN else self.config.further[task],
                None if text is None else _numpy(head_of(network.text_decider, task)(text)),
                None if image is None else _numpy(head_of(network.image_decider, task)(image)),
            )
            for task in tasks or self.config.tasks
        }

    @torch.inference_mode()
    def decide_images(self, evidence: Sequence[Evidence]) -> npt.NDArray[np.float64]:
        """The same (N, 5) of images without words, together: up to rounding what `decide` says of each."""
        shown = [
            (k, one.pixel_values, one.patch_mask)
            for k, one in enumerate(evidence)
            if one.pixel_values is not None and one.patch_mask is not None
        ]
        probs = np.tile(fuse(self.config, None, None), (len(evidence), 1))
        if shown:
            rows, pixel_values, patch_masks = zip(*shown, strict=True)
            logits = self.network.image_decider(torch.cat(pixel_values), torch.cat(patch_masks))
            for k, row in zip(rows, logits, strict=True):
                probs[k] = fuse(self.config, None, _numpy(row[None]))
        return probs

    def _predict_one(self, example: Example) -> Prediction:
        selection = self.select(example)
        return self._told(example, selection, self.decide(self.mask(example, selection)))

    def image_rationale(self, example: Example, selection: Selection) -> ImageRationale | None:
        """Where the selected patches lie; None without an image, or where no rationale was asked for."""
        if example.image is None or not example.image_rationale:
            return None
        return located(example.image, selection, self.config.image.rows, self.config.image.cols)

    def _told(self, example: Example, selection: Selection, probs: npt.NDArray[np.float64]) -> Prediction:
        return Prediction(
            label=self.classes[int(probs.argmax())],
            probs=dict(zip(self.classes, probs.tolist(), strict=True)),
            spans=merge_spans(words_of(example, self.tokenizer), selection),
            image=self.image_rationale(example, selection),
            fallbacks=selection.fallbacks,
        )

    def _spread_patches(self) -> tuple[int, ...]:
        return spread_patches(self.config.image.rows * self.config.image.cols, self.config.selection.n_patches)

    def _read(self, example: Example) -> tuple[Tokens, TextSelection]:
        tokens = tokens_of(example, self.tokenizer)
        return tokens, self.network.text_selector(self.network.embeddings(self._ids(tokens)))

    def _meet(self, example: Example, image: Pixels, vectors: Tensor | None, chosen: Sequence[int]) -> Space:
        pixel_values = pixel_values_of(example, patches.check_image(image), self.config.image.size_px)
        return meet(self.network.image_selector, self.config, image, pixel_values, vectors, chosen)

    def _score_patches(
        self, example: Example, image: Pixels, vectors: Tensor | None, chosen: Sequence[int]
    ) -> tuple[float, ...]:
        limits = self.config.selection
        space = self._meet(example, image, vectors, chosen)
        return tuple(_finite(transport(space, beta=limits.beta, n_steps=limits.n_steps)).tolist())

    def _ids(self, tokens: Tokens) -> Tensor:
        return torch.tensor([tokens.input_ids], device=self._device)


def located(image: Pixels, selection: Selection, rows: int, cols: int) -> ImageRationale:
    """The selected patches of a grid with their places in the image."""
    height, width = image.shape[:2]
    return ImageRationale(
        rows=rows,
        cols=cols,
        scores=selection.patch_scores,
        selected=selection.patches,
        boxes=patches.boxes(height, width, rows, cols, selection.patches),
    )


def task_probs(classifier: DecidesTasks, examples: Sequence[Example]) -> list[dict[str, dict[str, float]]]:
    """Of each example every task's class probabilities, all from the one evidence."""
    tasks: Mapping[str, Sequence[str]] = classifier.config.tasks
    decided = [classifier.decide_tasks(classifier.mask(example, classifier.select(example))) for example in examples]
    return [
        {task: dict(zip(tasks[task], probs.tolist(), strict=True)) for task, probs in answers.items()}
        for answers in decided
    ]


def _quicken(network: Network) -> None:
    """Linear layers in int8 and stage 1's convolutions in bf16, each where that is quicker on this CPU."""
    kind = int8.quickest()
    if kind is not None:
        int8.to_int8(network, kind)
    if is_bf16_fast():
        network.image_selector.encoder.to(torch.bfloat16)


def no_words(words: Sequence[Word]) -> ChosenWords:
    """Of a text that has nothing to choose from."""
    return ChosenWords(word_scores=(0.0,) * len(words), words=(), fallbacks=(NO_TEXT,))


def choose_from(words: Sequence[Word], tokens: Tokens, probs: Sequence[float], limits: WordLimits) -> ChosenWords:
    """From the rationale probability of each of a text's pieces; `probs` may be padded on the right."""
    if not any(word.selectable for word in words):
        return no_words(words)
    scores = best_piece(probs, tokens.words, words)
    chosen = tuple(choose_words(words, scores, limits, n_read=tokens.n_words))
    fallbacks: tuple[str, ...] = (TEXT_TRUNCATED,) if tokens.truncated else ()
    if not chosen:
        fallbacks += (NO_TEXT,)
    elif scores[chosen[0]] < limits.word_threshold:
        fallbacks += (NO_RATIONALE_TOKEN,)
    return ChosenWords(word_scores=tuple(scores), words=chosen, fallbacks=fallbacks)


def fuse(
    config: ModelConfig | TaskConfig,
    text: npt.NDArray[np.float64] | None,
    image: npt.NDArray[np.float64] | None,
) -> npt.NDArray[np.float64]:
    """Calibrated product of the experts that had evidence, (C,); the prior when none had."""
    if text is not None and image is not None:
        return _softmax(_weighted(config.fusion_both, text, image))
    if text is not None:
        return _softmax(_weighted(config.fusion_text, text, text * 0.0))
    if image is not None:
        return _softmax(_weighted(config.fusion_image, image * 0.0, image))
    return np.asarray(config.prior, dtype=np.float64)


def choose_patches(chosen: ChosenWords, scores: tuple[float, ...], n_patches: int, *, flat: bool) -> Selection:
    """The best patches, or evenly spread ones where these scores are flat as well.

    `flat` says that the words' own scores were, so that these stand in for them.
    """
    if not is_flat(scores, n_patches):
        return chosen.with_patches(scores, top_patches(scores, n_patches), *([FLAT_HEATMAP] if flat else []))
    told = [k for k, score in enumerate(scores) if score > 0.0]
    spread = tuple(told[k] for k in spread_patches(len(told), n_patches))
    return chosen.with_patches(scores, spread, FLAT_HEATMAP)


def top_patches(scores: Sequence[float], n_patches: int) -> tuple[int, ...]:
    """Indices of the n best scores, ties to the lower index, in grid order; a zero score is never selected."""
    ranked = sorted(range(len(scores)), key=lambda k: (-scores[k], k))
    return tuple(sorted(k for k in ranked[:n_patches] if scores[k] > 0.0))


def spread_patches(n_cells: int, n_patches: int) -> tuple[int, ...]:
    """Patches that nobody chose, evenly over the grid: what stage 2 reads where stage 1 was spared."""
    n_patches = min(n_patches, n_cells)
    return tuple((2 * index + 1) * n_cells // (2 * n_patches) for index in range(n_patches))


def merge_spans(words: Sequence[Word], selection: Selection) -> tuple[TextSpan, ...]:
    """Neighbouring selected words as one span with their best score."""
    spans: list[TextSpan] = []
    previous = -2
    for index in selection.words:
        start, score = words[index].start, selection.word_scores[index]
        if index == previous + 1:
            start, score = spans[-1].start, max(score, spans[-1].score)
            spans.pop()
        spans.append(TextSpan(start=start, end=words[index].end, score=score))
        previous = index
    return tuple(spans)


def _weighted(fusion: Fusion, text: npt.NDArray[np.float64], image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logits: npt.NDArray[np.float64] = fusion.text_weight * text + fusion.image_weight * image + np.asarray(fusion.bias)
    return logits


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    grown: npt.NDArray[np.float64] = np.exp(logits - logits.max())
    probs: npt.NDArray[np.float64] = grown / grown.sum()
    return probs


def _numpy(class_logits: Tensor) -> npt.NDArray[np.float64]:
    """Log-probabilities (C,) in float64."""
    values: npt.NDArray[np.float64] = _finite(class_logits[0].double().log_softmax(0)).cpu().numpy()
    return values


def _finite(values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise ModelError("the network produced a value that is not finite; the checkpoint is damaged")
    return values
