"""A small CLIP of made weights, under Hugging Face's names. NumPy alone."""

import numpy as np

CONTEXT, PATCH, IMAGE, SPACE = 77, 8, 32, 32
LAYERS = {"vision": 2, "text": 3}
WIDTHS = {"vision": 128, "text": 64}  # 64 channels an attention head


def made_tensors(vocabulary: int = 520) -> dict[str, np.ndarray]:
    """All tensors, float32, the same every time for a number of tokens."""
    random = np.random.default_rng(2021)
    tensors: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, spread: float) -> None:
        tensors[name] = (spread * random.standard_normal(shape)).astype(np.float32)

    def norm(name: str, width: int) -> None:
        add(f"{name}.weight", width, spread=0.1)
        tensors[f"{name}.weight"] += 1
        add(f"{name}.bias", width, spread=0.1)

    def dense(name: str, outputs: int, inputs: int) -> None:
        add(f"{name}.weight", outputs, inputs, spread=inputs**-0.5)
        add(f"{name}.bias", outputs, spread=0.1)

    for kind, width in WIDTHS.items():
        for number in range(LAYERS[kind]):
            place = f"{kind}_model.encoder.layers.{number}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                dense(f"{place}.self_attn.{part}", width, width)
            norm(f"{place}.layer_norm1", width)
            norm(f"{place}.layer_norm2", width)
            dense(f"{place}.mlp.fc1", 4 * width, width)
            dense(f"{place}.mlp.fc2", width, 4 * width)
    width, places = WIDTHS["vision"], (IMAGE // PATCH) ** 2 + 1
    add("vision_model.embeddings.class_embedding", width, spread=1)
    shape = (width, 3, PATCH, PATCH)
    add("vision_model.embeddings.patch_embedding.weight", *shape, spread=0.1)
    add("vision_model.embeddings.position_embedding.weight", places, width, spread=0.5)
    norm("vision_model.pre_layrnorm", width)
    norm("vision_model.post_layernorm", width)
    add("visual_projection.weight", SPACE, width, spread=width**-0.5)
    width = WIDTHS["text"]
    add("text_model.embeddings.position_embedding.weight", CONTEXT, width, spread=0.5)
    norm("text_model.final_layer_norm", width)
    add("text_projection.weight", SPACE, width, spread=width**-0.5)
    tensors["logit_scale"] = np.float32(4.6)
    add("text_model.embeddings.token_embedding.weight", vocabulary, width, spread=1)  # the last
    return tensors


def pictures() -> np.ndarray:
    """[4, 32, 32, 3] in [0, 1]."""
    return np.random.default_rng(1).random((4, IMAGE, IMAGE, 3), np.float32)


def texts(vocabulary: int = 520) -> np.ndarray:
    """[4, 77] tokens of texts of several lengths."""
    random = np.random.default_rng(2)
    tokens = np.zeros((4, CONTEXT), np.int32)
    for row, length in zip(tokens, (1, 5, 20, 75), strict=True):
        row[0] = vocabulary - 2
        row[1 : length + 1] = random.integers(1, vocabulary - 2, length)
        row[length + 1] = vocabulary - 1
    return tokens
