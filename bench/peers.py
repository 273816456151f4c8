"""What the scripts of PEFT's side share: models with adapters, and the packages that other people's steps get faster or smaller by.

A package that is not installed ends the script with one line that says so.
"""

import importlib.util
import sys

# transformers and PEFT import bitsandbytes wherever it lies, and it asks the GPU for its kind at once: slower for all, and no process
# could be forked from one that did. So only those have it that hold a base in four bits.
if not any(word.startswith("nf4") for word in sys.argv):
    sys.modules["bitsandbytes"] = None

import torch
from peft import LoraConfig, TaskType, VeraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

TARGETS = {
    "deberta-v2": ["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"],
    "bert": ["query", "key", "value", "intermediate.dense", "output.dense"],
    "mpnet": ["attn.q", "attn.k", "attn.v", "attn.o", "intermediate.dense", "output.dense"],
    "llama": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
    "bart": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}
WRITES = {
    "llama": (AutoModelForCausalLM, TaskType.CAUSAL_LM), "gpt2": (AutoModelForCausalLM, TaskType.CAUSAL_LM),
    "bart": (AutoModelForSeq2SeqLM, TaskType.SEQ_2_SEQ_LM),
}
KERNELS = {"liger": "liger_kernel", "flashdeberta": "flashdeberta", "disentangled": "disentangled_flash"}


def package(name):
    """A package, or the end of this script."""
    if importlib.util.find_spec(name) is None:
        sys.exit(f"{name} is not installed")
    return importlib.import_module(name)


def kind(model_type):
    """The class of models, and PEFT's name of their task."""
    return WRITES.get(model_type, (AutoModelForSequenceClassification, TaskType.SEQ_CLS))


def random_model(config, dtype, device, kernels=None):
    """A model with random weights, made where it is needed: a large one would not fit twice."""
    model_class, _ = kind(config.model_type)
    faster = package(KERNELS[kernels]) if kernels else None
    if kernels == "liger":
        transformed = importlib.import_module("liger_kernel.transformers")
        apply = getattr(transformed, f"apply_liger_kernel_to_{config.model_type}", None)
        apply() if apply else sys.exit(f"liger_kernel has nothing for {config.model_type}")
    with torch.device(device):
        if kernels == "flashdeberta":
            return faster.FlashDebertaV2ForSequenceClassification._from_config(config, dtype=dtype)
        model = model_class.from_config(config, dtype=dtype)
    if kernels == "disentangled":
        # It multiplies by the layers' weights, past their adapters; so it shall ask the layers.
        attention = importlib.import_module("disentangled_flash._torch").TorchTrainingDisentangledSelfAttention
        attention._project_qkv = lambda self, x: (self.query_proj(x), self.key_proj(x), self.value_proj(x))
        faster.optimize_deberta_training(model.deberta, backend="triton" if device == "cuda" else "torch")
    return model


def quantise(model, nested):
    """Holds the linear layers of all blocks in four bits, as bitsandbytes does; all else stays as it is."""
    nn = package("bitsandbytes").nn
    for name, layer in [(n, m) for n, m in model.named_modules() if type(m) is torch.nn.Linear and "lm_head" not in n]:
        form = dict(compress_statistics=nested, quant_type="nf4")
        small = nn.Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.dtype, device="meta", **form)
        small.weight = nn.Params4bit(layer.weight.data, requires_grad=False, **form).to(layer.weight.device)
        small.bias = layer.bias
        model.set_submodule(name, small)
    # By this PEFT knows which layers it is to put on them.
    model.is_loaded_in_4bit = True
    return model


def with_adapters(model, method, **options):
    """`lora` (r = 8, α = 16) or `vera` (r = 1024) on the linear layers of all blocks; `lora:32` has another rank."""
    method, _, rank = method.partition(":")
    common = dict(task_type=kind(model.config.model_type)[1], target_modules=TARGETS[model.config.model_type], **options)
    if method == "lora":
        return get_peft_model(model, LoraConfig(**{"r": int(rank or 8), "lora_alpha": 16, **common}))
    if method == "vera":
        return get_peft_model(model, VeraConfig(**{"r": int(rank or 1024), **common}))
    sys.exit(f"there is no method {method}")


def spread(model):
    """Spreads all weights over the processes, block by block (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    blocks = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or []}
    for module in model.modules():
        if type(module).__name__ in blocks:
            fully_shard(module)
    return fully_shard(model)
