"""Whether a processor multiplies bfloat16: the engine and training on a CPU are quick in it only then."""

from __future__ import annotations

import torch


def multiplies_bfloat16() -> bool:
    """Whether this computer's processor does so by itself, by AVX-512."""
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not a documented function: it may go
    return check is not None and check()
