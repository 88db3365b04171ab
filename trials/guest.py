"""Isolation of user code: what a user's file, task or model sets in the process is put back when it returns.

All trials of a worker share its process, and which trials a worker gets is chance: a default dtype that one model sets
must not change the numbers of the next. So a user's code is run inside ``guest``: torch's, NumPy's and Python's global
generators start from a seed and a purpose, and these, torch's settings, NumPy's, warning filters, working directory,
environment and locale are afterwards as they were. What is printed goes to the standard error, for the standard output
may be read by programs.
"""

from __future__ import annotations

import contextlib
import decimal
import gc
import locale
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch

from trials import patched
from trials.errors import UserError
from trials.streams import seeded

T = TypeVar("T")
_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # how it is read, and how it is set


def _flag(where: Any, name: str) -> _Setting:
    return (lambda: getattr(where, name)), (lambda value: setattr(where, name, value))


def _function_pairs(where: Any, **pairs: str) -> list[_Setting]:
    return [(getattr(where, get), getattr(where, put)) for get, put in pairs.items() if hasattr(where, get)]


def _autocast(device: str) -> list[_Setting]:
    return [(lambda: torch.is_autocast_enabled(device), lambda on: torch.set_autocast_enabled(device, on)),
            (lambda: torch.get_autocast_dtype(device), lambda dtype: torch.set_autocast_dtype(device, dtype))]


def _put_path(before: list[str]) -> None:
    """What was added stays, for what its owner imports later, but behind what was there: it must not hide that."""
    sys.path[:] = [*before, *(entry for entry in sys.path if entry not in before)]


def _environment() -> dict[Any, Any]:
    return dict(vars(os.environ)["_data"])  # as bytes: to decode all of it takes longer than all the rest here


def _put_environment(before: dict[Any, Any]) -> None:
    now = vars(os.environ)["_data"]
    for key in [key for key in now if key not in before]:
        del os.environb[key]
    os.environb.update({key: value for key, value in before.items() if now.get(key) != value})


def _modes(depth: Callable[[], int], leave: Callable[[], Any]) -> _Setting:
    """Modes of torch that were entered and never left."""
    return depth, lambda before: [leave() for _ in range(depth() - before)]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _handlers() -> dict[int, Any]:
    """Of signals; only the main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _put_handlers(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:  # None: one that Python did not set
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD)
# torch has two ways to set a precision. The newer comes first, for while both are in use the older raises; and last
# too, for the older, when it is set, sets it.
_PRECISIONS = [_flag(where, "fp32_precision") for where in (
    torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.mkldnn)]
_SETTINGS: tuple[_Setting, ...] = (
    *_PRECISIONS,
    *_function_pairs(
        torch, get_default_dtype="set_default_dtype", is_grad_enabled="set_grad_enabled",
        get_num_threads="set_num_threads", get_float32_matmul_precision="set_float32_matmul_precision",
        is_autocast_cache_enabled="set_autocast_cache_enabled"),
    *_function_pairs(
        torch.backends.cuda, flash_sdp_enabled="enable_flash_sdp", mem_efficient_sdp_enabled="enable_mem_efficient_sdp",
        math_sdp_enabled="enable_math_sdp", cudnn_sdp_enabled="enable_cudnn_sdp"),
    (lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
     lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1])),
    (lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
     lambda value: torch.autograd.set_detect_anomaly(*value)),
    *_autocast("cpu"), *_autocast("cuda"),
    *(_flag(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")),
    *(_flag(torch.backends.cuda.matmul, name) for name in (
        "allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")),
    _flag(torch.backends.mkldnn, "enabled"),
    (lambda: sys.float_info.min / 4 == 0.0, torch.set_flush_denormal),  # of this thread, in Python as in torch
    (lambda: dict(vars(torch._tensor_str.PRINT_OPTS)), lambda value: vars(torch._tensor_str.PRINT_OPTS).update(value)),
    _flag(torch.utils.deterministic, "fill_uninitialized_memory"),
    (torch._C._check_sparse_tensor_invariants, torch._C._set_check_sparse_tensor_invariants),
    (np.geterr, lambda value: np.seterr(**value)),
    (np.geterrcall, np.seterrcall),
    (np.getbufsize, np.setbufsize),
    (np.get_printoptions, lambda value: np.set_printoptions(**value)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    (gc.get_threshold, lambda value: gc.set_threshold(*value)),
    (lambda: decimal.getcontext().__reduce__()[1], lambda value: decimal.setcontext(decimal.Context(*value))),
    _flag(logging.root.manager, "disable"),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    _modes(lambda: torch._C._len_torch_function_stack(), lambda: torch._C._pop_torch_function_stack()),
    _modes(lambda: torch._C._len_torch_dispatch_stack(), lambda: torch._C._pop_torch_dispatch_stack(None)),
    _flag(tempfile, "tempdir"),
    (_umask, os.umask),
    (_handlers, _put_handlers),
    _flag(sys, "stderr"),
    (os.getcwd, os.chdir),
    (lambda: list(sys.path), _put_path),
    (_environment, _put_environment),
    (lambda: locale.setlocale(locale.LC_ALL), lambda value: locale.setlocale(locale.LC_ALL, value)),
    *_PRECISIONS,
)
_UNKNOWN = object()


def _read(get: Callable[[], Any]) -> Any:
    """A setting's value; _UNKNOWN where this version of torch lacks it, or the directory is gone, or the like."""
    try:
        return get()
    except (AttributeError, RuntimeError, OSError, locale.Error):
        return _UNKNOWN


@contextlib.contextmanager
def put_back(whose: str = "this code") -> Iterator[None]:
    """Global settings are afterwards as they were before. Raises UserError where torch's or NumPy's own functions,
    classes or global hooks were changed, by ``whose`` code: put back they would be missed there."""
    device, before, names = torch.get_default_device(), [_read(get) for get, _ in _SETTINGS], patched.snapshot()
    changed: list[str] = []
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        changed += patched.put_back(names)
        torch.set_default_device(None)  # not only where it differs: one that is set by hand slows down every call
        if device.type != "cpu":
            torch.set_default_device(device)
        for (get, put), value in zip(_SETTINGS, before, strict=True):
            if value is not _UNKNOWN and _read(get) != value:
                with contextlib.suppress(AttributeError, RuntimeError, OSError, locale.Error):
                    put(value)
    if changed:
        raise UserError(f"{whose} changes {', '.join(changed[:3])}{' and more' if len(changed) > 3 else ''}, which all "
                        "models of a process share; write a subclass, or change its own parts")


@contextlib.contextmanager
def guest(seed: int, purpose: str, device: str = "cpu", whose: str = "this code") -> Iterator[None]:
    """Inside, a user's code may do what it likes with global settings and with the global generators, which start from
    (seed, purpose); outside, all of them are as if nothing had happened."""
    with put_back(whose), seeded(seed, purpose, device):
        yield


def each_as_guest(items: Iterator[T], seed: int, purpose: str, device: str, whose: str) -> Iterator[T]:
    """The items, each of them made inside ``guest``; what is done with them between is outside."""
    while True:
        with guest(seed, purpose, device, whose):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
