"""Which arithmetic `auto` is."""

import pytest

from pipelines.models.precision import arithmetic, native_arithmetic


@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_what_the_recipe_names_is_what_is_computed_in(wanted):
    assert arithmetic(wanted, "cpu") == wanted


def test_auto_is_what_the_cpu_multiplies_in_natively():
    import torch

    # The oldest level that the library emulates bfloat16 on is AVX-512: below it there are only scalar loops.
    vectors = torch.cpu.get_capabilities().get("avx512_bw", False)
    if torch.cpu.get_capabilities()["architecture"] != "x86_64":
        pytest.skip("other processors tell by other names")
    assert arithmetic("auto", "cpu") == native_arithmetic("cpu") == ("bfloat16" if vectors else "float32")
