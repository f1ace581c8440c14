"""Package metadata of TrustJAX; tool settings live in pyproject.toml."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent

# Python 3.11 resolves to jax 0.10, Python 3.12 and later to jax 0.12. Both
# are tested, so the range is open between them and closed above.
_CORE = [
  "absl-py>=2.1",
  "array_record>=0.8.1",
  "chex>=0.1.91",
  "dp-accounting>=0.6,<0.7",
  "flax>=0.12",
  "jax>=0.10,<0.13",
  "jaxtyping>=0.3",
  "matplotlib>=3.9",
  "ml_collections>=1.1",
  "numpy>=2.0",
  "optax>=0.2.6",
  "orbax-checkpoint>=0.11.20",
  "rich>=13.9",
  "scipy>=1.14",
  "tensorflow-datasets>=4.9.9",
  "tokenizers>=0.20",
]

_TEST = [
  "beartype>=0.19",
  "equinox>=0.13",
  "fairlearn>=0.12",
  "hypothesis>=6.100",
  "jax-privacy==2.0.0",
  "pyright==1.1.414",
  "pytest>=8.3",
  "pytest-xdist>=3.6",
  "ruff==0.17.6",
  "safetensors>=0.4.5",
  "scikit-learn>=1.5",
  "seqeval>=1.2.2",
]

_PRETRAINED = ["safetensors>=0.4.5", "huggingface-hub>=0.26"]

# Benchmark opponents: heavy, and never imported by the library. pfl is not
# among them: it asks for a dp-accounting that is older than ours, and runs with
# ours once it is installed with --no-deps.
_PEERS = [
  "jax-privacy==2.0.0",
  "opacus>=1.5",
  "torch>=2.5",
  "transformers>=4.50",
]
# For a GPU; its compiler also works without one (experiments.predict_gpu_step).
_CUDA = ["jax[cuda12]>=0.10,<0.13; sys_platform == 'linux'"]
_ATTACK_PEERS = ["adversarial-robustness-toolbox>=1.20", "privacy-meter>=1.0"]

setuptools.setup(
  name="trustjax",
  version="0.1.0",
  description=(
    "JAX research codebase for high-throughput private training and "
    "trustworthy NLP"
  ),
  long_description=(_ROOT / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(
    include=["trustjax*", "experiments*", "configs*"]
  ),
  package_data={"trustjax": ["py.typed", "**/*.md"]},
  install_requires=_CORE,
  extras_require={
    "test": _TEST,
    "pretrained": _PRETRAINED,
    "peers": _PEERS,
    "attack_peers": _ATTACK_PEERS,
    "cuda": _CUDA,
  },
)
