"""What is remembered of a shape is what upstream works out, and nothing of another value."""

import pytest
import triton.language as tl


@pytest.mark.parametrize("dtype", [tl.float32, tl.bfloat16, tl.pointer_type(tl.int8)], ids=str)
@pytest.mark.parametrize("shape", [[16], [2, 8], [8, 2], [1, 16]], ids=str)
def test_a_type_made_twice_is_the_type(shape, dtype):
    for _ in range(2):
        block = tl.block_type(dtype, [tl.constexpr(size) for size in shape])
        assert (list(block.shape), block.numel, block.scalar) == (shape, 16, dtype)
        assert block == tl.block_type(dtype, shape)
        assert str(block) == block.name and str(dtype) in block.name


@pytest.mark.parametrize(("shape", "error"), [([], TypeError), ([3], ValueError)])
def test_a_wrong_shape_is_refused_every_time(shape, error):
    for _ in range(2):
        with pytest.raises(error):
            tl.block_type(tl.float32, shape)


@pytest.mark.parametrize(
    ("dtype", "shape"), [(tl.block_type(tl.float16, [4, 2]), [4, 2]), (tl.float16, [])]
)
def test_tensors_share_a_shape_and_no_handle(dtype, shape):
    first, second = (tl.tensor(handle, dtype) for handle in ("first", "second"))
    assert (first.handle, second.handle) == ("first", "second")
    for x in (first, second):
        assert [size.value for size in x.shape] == shape
        assert x.numel.value == (8 if shape else 1)
        assert x.type is dtype and x.dtype == tl.float16


def test_a_type_keeps_its_own_elements():
    constant = tl.pointer_type(tl.float32, address_space=3)
    assert tl.block_type(tl.pointer_type(tl.float32), [8]) != tl.block_type(constant, [8])
    assert tl.block_type(constant, [8]).scalar is constant
    for pointer in (tl.pointer_type(tl.float32), constant):
        x = tl.tensor("handle", pointer)
        assert x.type is pointer and x.dtype is pointer
