"""Item text -> item vector with onnxruntime and tokenizers, for items that the model never saw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from deploy.errors import UsageError
from deploy.ranker import first_line, open_session, wants_one_by_one

Vectors = npt.NDArray[np.float32]


class TextEncoder:
    """texts -> vectors. Thread-safe after construction."""

    def __init__(
        self, graph: Path, tokenizer: Path, max_tokens: int, *, threads: int = 1, batch_size: int = 32
    ) -> None:
        """graph: `text.<precision>.onnx`. tokenizer: `tokenizer.json`. Longer texts are cut at `max_tokens` tokens.

        Raises UsageError where either cannot be loaded or the graph has other inputs.
        """
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises bare Exception
            raise UsageError(f"{tokenizer.name}: tokenizers cannot load it ({first_line(error)})") from None
        self._tokenizer.enable_truncation(max_tokens)
        # Which id pads is without effect: the attention mask hides it.
        self._tokenizer.enable_padding(pad_id=0)
        self._session = open_session(graph, threads=threads)
        self._batch_size = 1 if wants_one_by_one(self._session) else batch_size
        inputs = {value.name for value in self._session.get_inputs()}
        outputs = [value.name for value in self._session.get_outputs()]
        if inputs != {"input_ids", "attention_mask"} or outputs != ["vectors"]:
            raise UsageError(
                f"{graph.name}: must map input_ids, attention_mask to vectors "
                f"(got {', '.join(sorted(inputs))} to {', '.join(outputs)})"
            )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """texts -> float32 (len(texts), dim), in the order given."""
        if not texts:
            return self._encode_batch([""])[:0]
        size = self._batch_size
        return np.concatenate([self._encode_batch(texts[start : start + size]) for start in range(0, len(texts), size)])

    def _encode_batch(self, texts: Sequence[str]) -> Vectors:
        encodings = self._tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], np.int64),
        }
        vectors: Vectors = self._session.run(["vectors"], feed)[0]
        return vectors
