"""Compiles a Triton kernel for a GPU that need not be there, and tells what its registers spill."""

import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler
from triton.compiler import ASTSource


def spilled_bytes(kernel, constants: dict, types: dict, arch: int = 90, num_warps: int = 4) -> int:
    """Bytes of the stack that a thread of the kernel uses.

    Args:
        kernel: a function under triton.jit.
        constants: its compile-time arguments.
        types: of its other arguments, such as "*fp32" for pointers; "i32" where an argument is not there.
        arch: compute capability, 90 for Hopper.
        num_warps: warps of a program.
    """
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": num_warps})
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "kernel.cubin")
        binary.write_bytes(made.asm["cubin"])
        tool = Path(compiler.__file__).parent / "bin" / "cuobjdump"
        said = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    return int(said.split("STACK:")[1].split()[0])
