"""Whether a row's sums keep their order in another batch, as Triton's GPU IR says it."""

import pytest

from gptwin.lab.inspect import batches

TTGIR = """
#blocked = #ttg.blocked<{sizePerThread = [1, 8], order = [1, 0]}>
#mma = #ttg.nvidia_mma<{versionMajor = 3}>
module {
  %0 = tt.load %p : tensor<4x8x!tt.ptr<f32>, #blocked>
  %1 = tt.dot %a, %b, %c : tensor<16x16xbf16, #blocked> -> tensor<16x16xf32, #mma>
  %2 = "tt.reduce"(%1) <{axis = 1 : i32}> ({
  ^bb0(%x: f32, %y: f32):
  }) : (tensor<16x16xf32, #mma>) -> tensor<16xf32, #ttg.slice<{dim = 1, parent = #mma}>>
}
"""


def test_layouts_count_and_their_names_do_not():
    order = batches.order_of_sums(TTGIR)
    assert len(order) == 4  # of the product and of the sum
    assert order[0].startswith("16x16xbf16, #ttg.blocked<{sizePerThread = [1, 8]")
    assert "nvidia_mma<{versionMajor = 3}>" in order[-1]
    assert batches.order_of_sums(TTGIR.replace("#blocked", "#blocked7")) == order
    for change in (("[1, 8]", "[1, 4]"), ("16x16xf32", "32x16xf32"), ("Major = 3", "Major = 2")):
        assert batches.order_of_sums(TTGIR.replace(*change)) != order
    assert batches.order_of_sums(TTGIR.replace("tt.load", "tt.stare")) == order


@pytest.mark.parametrize("differs", [False, True])
def test_what_differs_is_named(differs, monkeypatch):
    def compiled(twin, dtype, batch):
        wider = differs and batch == 16
        return [("kernel", TTGIR.replace("[1, 8]", "[1, 4]") if wider else TTGIR)]

    monkeypatch.setattr(batches, "_compiled", compiled)
    (line,) = batches._compare("gelu", "float32", "sm_90")
    assert line.startswith("DIFFERS: sm_90 gelu float32 kernel") == differs


def test_an_operation_without_rows_is_refused():
    with pytest.raises(ValueError, match=r"op: expected one whose results have rows.*whitened"):
        batches.inspect_batches(["whiten"], [], ["float32"])
