"""Kernels of XLA programs, and the roofline, on texts with known counts."""

import jax
import jax.numpy as jnp
import pytest

from experiments._benchmarks import (
  _gpu_targets,
  _hlo_kernels,
  _hlo_text,
  _roofline,
)

_H200 = _gpu_targets.GPUS["h200"]
_PRODUCT = """ENTRY %main (a: f32[4,8], b: f32[8,2]) -> f32[4,2] {
  %a = TYPE[4,8]{1,0} parameter(0)
  %b = TYPE[8,2]{1,0} parameter(1)
  ROOT %product.1 = (f32[4,2]{1,0}, s8[1024]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(f)/jvp()/dot_general"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]},"precision_config":{"operand_precision":["PRECISION","PRECISION"],"algorithm":"ALGORITHM"}}}
}
"""  # noqa: E501


def product(dtype="f32", precision="DEFAULT", algorithm="ALG_UNSET"):
  text = _PRODUCT.replace("TYPE", dtype).replace("PRECISION", precision)
  (kernel,) = _hlo_kernels.kernels(text.replace("ALGORITHM", algorithm))
  return kernel


@pytest.mark.parametrize(
  ("fields", "dtype", "passes"),
  [
    ({}, "tf32", 1),
    ({"precision": "HIGHEST"}, "f32", 1),
    ({"dtype": "bf16"}, "bf16", 1),
    ({"dtype": "f64"}, "f64", 1),
    ({"algorithm": "ALG_DOT_BF16_BF16_F32_X3"}, "bf16", 3),
    ({"algorithm": "ALG_DOT_TF32_TF32_F32"}, "tf32", 1),
    ({"algorithm": "ALG_DOT_F32_F32_F32"}, "f32", 1),
  ],
)
def test_a_product_of_a_library(fields, dtype, passes):
  kernel = product(**fields)
  assert kernel.dtype == dtype
  assert kernel.flops == passes * 2 * 4 * 2 * 8
  # Operands and result; the library's scratch memory is not moved.
  width = {"bf16": 2, "f64": 8}.get(fields.get("dtype"), 4)
  assert kernel.bytes == width * (32 + 16) + 4 * 8
  assert not kernel.is_batched
  assert kernel.shape == "f32[4,2]"
  assert kernel.label == "jit(f)/jvp()/dot_general"


_FUSIONS = """HloModule jit_f, is_scheduled=true

%add_body (p0: bf16[10,8]) -> f32[10,8] {
  %p0 = bf16[10,8]{1,0} parameter(0)
  %one = bf16[] constant(1)
  %ones = bf16[10,8]{1,0} broadcast(%one), dimensions={}
  %sum = bf16[10,8]{1,0} add(%p0, %ones), metadata={op_name="jit(f)/vmap(jvp())/add"}
  ROOT %wide = f32[10,8]{1,0} convert(%sum)
}

%row_body (p1: f32[10,8], i1: s32[]) -> f32[1,8] {
  %p1 = f32[10,8]{1,0} parameter(0)
  %i1 = s32[] parameter(1)
  %zero1 = s32[] constant(0)
  %view = f32[10,8]{1,0} bitcast(%p1)
  %row = f32[1,8]{1,0} dynamic-slice(%view, %i1, %zero1), dynamic_slice_sizes={1,8}
  ROOT %twice = f32[1,8]{1,0} add(%row, %row)
}

%put_body (p2: f32[10,8], u2: f32[1,8], i2: s32[]) -> (f32[10,8], s32[]) {
  %p2 = f32[10,8]{1,0} parameter(0)
  %u2 = f32[1,8]{1,0} parameter(1)
  %i2 = s32[] parameter(2)
  %zero2 = s32[] constant(0)
  %put = f32[10,8]{1,0} dynamic-update-slice(%p2, %u2, %i2, %zero2)
  %next = s32[] add(%i2, %i2)
  ROOT %pair = (f32[10,8]{1,0}, s32[]) tuple(%put, %next)
}

%scatter_body (p3: f32[10,8], k3: s32[2,1], u3: f32[2,8]) -> f32[10,8] {
  %p3 = f32[10,8]{1,0} parameter(0)
  %k3 = s32[2,1]{1,0} parameter(1)
  %u3 = f32[2,8]{1,0} parameter(2)
  ROOT %added = f32[10,8]{1,0} scatter(%p3, %k3, %u3), to_apply=%plus
}

%whole_body (p4: f32[10,8]) -> (f32[8], f32[10,8]) {
  %p4 = f32[10,8]{1,0} parameter(0)
  %some = f32[1,8]{1,0} slice(%p4), slice={[0:1], [0:8]}
  %flat = f32[8]{0} reshape(%some)
  ROOT %both = (f32[8]{0}, f32[10,8]{1,0}) tuple(%flat, %p4)
}

ENTRY %main.9 (x: bf16[10,8], i: s32[], k: s32[2,1], u: f32[2,8]) -> f32[10,8] {
  %x = bf16[10,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %k = s32[2,1]{1,0} parameter(2)
  %u = f32[2,8]{1,0} parameter(3)
  %loop_add_fusion.3 = f32[10,8]{1,0} fusion(%x), kind=kLoop, calls=%add_body
  %row_fusion = f32[1,8]{1,0} fusion(%loop_add_fusion.3, %i), kind=kLoop, calls=%row_body
  %put_fusion = (f32[10,8]{1,0}, /*index=1*/s32[]) fusion(%loop_add_fusion.3, %row_fusion, %i), kind=kLoop, calls=%put_body
  %new = f32[10,8]{1,0} get-tuple-element(%put_fusion), index=0
  %scatter_fusion = f32[10,8]{1,0:T(8,128)} fusion(%new, %k, %u), kind=kInput, calls=%scatter_body
  %whole_fusion = (f32[8]{0}, f32[10,8]{1,0}) fusion(%scatter_fusion), kind=kLoop, calls=%whole_body
  ROOT %copy.1 = f32[10,8]{0,1} copy(%scatter_fusion)
}
"""  # noqa: E501


def test_bytes_of_fusions():
  """What is sliced counts as read, what is updated in place as written."""
  found = {x.name: x for x in _hlo_kernels.kernels(_FUSIONS)}
  assert {name: x.bytes for name, x in found.items()} == {
    "loop_add_fusion.3": 160 + 320,
    "row_fusion": 32 + 4 + 32,
    "put_fusion": 32 + 4 + 32 + 4,
    # The entries that are added to are read, too.
    "scatter_fusion": 64 + 8 + 64 + 64,
    "whole_fusion": 320 + 32 + 320,
    "copy.1": 640,
  }
  assert {x.flops for x in found.values()} == {0}
  # A fusion that lost its label has that of what it computes.
  fusion = found["loop_add_fusion.3"]
  assert fusion.label == "jit(f)/vmap(jvp())/add"
  assert fusion.what == "fusion loop_add_fusion"
  assert found["put_fusion"].shape == "(f32[10,8], s32[])"


_LOOPS = """%small (s: f32[8,8]) -> f32[8,8] {
  %s = f32[8,8]{1,0} parameter(0)
  %batched = f32[8,8]{1,0} dot(%s, %s), lhs_batch_dims={0}, lhs_contracting_dims={1}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  ROOT %negated = f32[8,8]{1,0} negate(%batched)
}

%inner (c: f32[8,8]) -> f32[8,8] {
  %c = f32[8,8]{1,0} parameter(0)
  ROOT %fused = f32[8,8]{1,0} fusion(%c), kind=kCustom, calls=%small
}

%no (n: f32[8,8]) -> f32[8,8] {
  %n = f32[8,8]{1,0} parameter(0)
  ROOT %dear = f32[8,8]{1,0} dot(%n, %n), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}
}

%yes (y: f32[8,8]) -> f32[8,8] {
  %y = f32[8,8]{1,0} parameter(0)
  ROOT %cheap = f32[8,8]{1,0} negate(%y)
}

%outer (d: f32[8,8]) -> f32[8,8] {
  %d = f32[8,8]{1,0} parameter(0)
  %known = f32[8,8]{1,0} while(%d), condition=%go, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  %p = pred[] constant(true)
  ROOT %chosen = f32[8,8]{1,0} conditional(%p, %known, %known), BRANCHES
}

%called (e: f32[8,8]) -> f32[8,8] {
  %e = f32[8,8]{1,0} parameter(0)
  ROOT %exact = f32[8,8]{1,0} dot(%e, %e), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}
}

ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %turned = f32[8,8]{1,0} while(%a), condition=%go, body=%outer
  ROOT %end = f32[8,8]{1,0} call(%turned), to_apply=%called
}
"""  # noqa: E501


@pytest.mark.parametrize(
  "branches",
  [
    "branch_computations={%no, %yes}",
    "true_computation=%yes, false_computation=%no",
  ],
)
def test_loops_turn_and_conditionals_take_the_true_branch(branches):
  text = _LOOPS.replace("BRANCHES", branches)
  found = _hlo_kernels.kernels(text, loop_trips=5)
  assert [(x.name, x.count, x.in_loop) for x in found] == [
    ("fused", 15, True),
    ("cheap", 5, True),
    ("exact", 1, False),
  ]
  fused, cheap, exact = found
  assert (fused.flops, fused.dtype, fused.is_batched) == (1024, "tf32", True)
  assert (exact.flops, exact.dtype, exact.is_batched) == (1024, "f32", False)
  assert fused.bytes == cheap.bytes == 512
  with pytest.raises(
    ValueError, match="loop_trips: got None, and how often tu"
  ):
    _hlo_kernels.kernels(text)


def test_kernels_of_a_program_that_jax_compiled():
  """A loop of unknown length, one of known length, and a branch."""
  size = 64

  def f(x, y, turns):
    x = jax.lax.fori_loop(0, turns, lambda i, c: jnp.tanh(c @ y), x)
    x, _ = jax.lax.scan(lambda c, _: (jnp.sin(c @ y), None), x, None, length=5)
    is_finite = jnp.all(jnp.isfinite(x))
    return jax.lax.cond(is_finite, lambda x: 2 * x, lambda x: x @ y @ y, x)

  matrix = jax.ShapeDtypeStruct((size, size), jnp.float32)
  turns = jax.ShapeDtypeStruct((), jnp.int32)
  text = jax.jit(f).lower(matrix, matrix, turns).compile().as_text()
  found = _hlo_kernels.kernels(text, loop_trips=7)
  products = [x for x in found if x.flops]
  assert sorted(x.count for x in products) == [5, 7]
  assert {x.flops for x in products} == {2 * size**3}
  # Two operands are read and one result is written.
  assert min(x.bytes for x in products) == 3 * 4 * size**2
  assert all("dot_general" in x.label and x.in_loop for x in products)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("HloModule nothing", "text: found no entry computation"),
    (
      _PRODUCT.replace("__cublas$lt$matmul", "__cudnn$convForward"),
      "product.1 is a __cudnn\\$convForward; its operations are not counted",
    ),
    (
      _PRODUCT.replace("custom-call(", "custom-call-start("),
      "product.1 is a __cublas\\$lt\\$matmul; its operations",
    ),
    (
      _LOOPS.replace("negate(%y)", "convolution(%y, %y)").replace(
        "BRANCHES", "branch_computations={%no, %yes}"
      ),
      "cheap is a convolution; its operations are not counted",
    ),
    ("ENTRY %m () -> f32[] {\n  %a = f32[] add(%b", "a parenthesis is never"),
  ],
)
def test_texts_that_cannot_be_counted(text, message):
  with pytest.raises(ValueError, match=message):
    _hlo_kernels.kernels(text, loop_trips=1)


@pytest.mark.parametrize(
  ("dtype", "dims", "size"),
  [
    ("bf16", (3, 4), 24),
    ("pred", (5,), 5),
    ("s4", (4,), 2),
    ("f8e4m3fn", (4,), 4),
    ("c64", (), 8),
    ("token", (), 0),
  ],
)
def test_bytes_of_shapes(dtype, dims, size):
  assert _hlo_text.Shape(dtype, dims).bytes == size


def kernel(**fields):
  fixed = dict(name="k", what="w", shape="f32[]", label="", count=1, bytes=0)
  return _hlo_kernels.Kernel(**(fixed | fields))


def test_roofline_takes_the_slower_of_memory_and_products():
  memory = kernel(name="m", what="m", bytes=4 * 10**9, count=2)
  product = kernel(
    name="p", what="p", bytes=8, flops=13 * 10**11, dtype="bf16", count=3
  )
  again = kernel(name="q", what="m", bytes=4 * 10**9)
  predicted = _roofline.predict([memory, product, again], _H200)
  assert predicted.kernels == 6
  assert predicted.flops == 39 * 10**11
  assert predicted.bytes == 12 * 10**9 + 24
  # 1 ms at 4 TB/s three times, 2 ms at 650 TFLOP/s three times, six launches.
  assert predicted.seconds == pytest.approx(3e-3 + 6e-3 + 6 * 3e-6)
  assert sum(predicted.by_kind.values()) == pytest.approx(predicted.seconds)
  assert predicted.by_kind["outside the loop"] == pytest.approx(3e-3)
  assert predicted.by_kind["clipped sum"] == pytest.approx(6e-3)
  # What does the same at two places is one entry.
  (first, longest), (second, seconds) = predicted.costliest
  assert (first.name, first.count) == ("p", 3)
  assert (second.name, second.count) == ("m", 3)
  assert longest == pytest.approx(6e-3 + 3 * 3e-6)
  assert seconds == pytest.approx(3e-3 + 3 * 3e-6)


def test_a_slower_memory_slows_what_is_bound_by_it():
  bound = [kernel(bytes=28 * 10**8)]
  slow, fast = (
    _roofline.predict(bound, _gpu_targets.find(name)).by_kind
    for name in ("h100", "h200")
  )
  assert slow["outside the loop"] == pytest.approx(1e-3)
  assert fast["outside the loop"] == pytest.approx(0.7e-3)


@pytest.mark.parametrize(
  ("fields", "kind"),
  [
    ({"label": "jit(step)/jvp(vmap())/add"}, "elementwise, forward"),
    ({"label": "a/vmap(transpose(jvp()))/mul"}, "elementwise, backward"),
    ({"label": "a/jvp(vmap())/transpose"}, "elementwise, forward"),
    ({"label": "a/while/body/cond/mul", "in_loop": True}, None),
    ({"label": "jit(step)/sqrt"}, "outside the loop"),
    ({"label": "a/jvp()/dot_general", "flops": 1}, "products, forward"),
    ({"label": "a/transpose(jvp())/dot_general", "flops": 1}, "backward"),
    ({"label": "a/uetd,uesd->uets/dot_general", "flops": 1}, "Gram matrices"),
    ({"label": "a/uetd,uetp->edp/dot_general", "flops": 1}, "clipped sum"),
    ({"flops": 1, "is_batched": True, "in_loop": True}, "Gram matrices"),
    ({"flops": 1, "in_loop": True}, "clipped sum"),
  ],
)
def test_kinds_of_kernels(fields, kind):
  wanted = {None: "elementwise, rest of loop", "backward": "products, backward"}
  assert _roofline.kind(kernel(**fields)) == wanted.get(kind, kind)


def test_what_the_roofline_refuses():
  with pytest.raises(ValueError, match="kernels: got none"):
    _roofline.predict([], _H200)
  with pytest.raises(
    ValueError, match="rates: NVIDIA H200 .* products of 's8'"
  ):
    _roofline.predict([kernel(flops=1, dtype="s8")], _H200)


def test_what_the_compiler_is_told_of_a_gpu():
  for gpu in _gpu_targets.GPUS.values():
    text = _gpu_targets.target_config(gpu)
    assert f"device_memory_size: {gpu.memory_bytes} " in text
    assert f"memory_bandwidth: {gpu.peak_bandwidth} " in text
    assert f"with {gpu.memory_bytes}B RAM, 132 cores, 1980000KHz clock" in text
    assert text.count("{") == text.count("}")
    assert gpu.bandwidth < gpu.peak_bandwidth
  with pytest.raises(ValueError, match=r"gpu: got 'a100'; allowed are \['h100"):
    _gpu_targets.find("a100")
