"""A plugin for pytest (-p silicon_of): the tests run on the build of the silicon that PYHV_TEST_SILICON names."""

import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

_NAME = "pyhv.hv.sim._silicon"

if path := os.environ.get("PYHV_TEST_SILICON"):
    assert _NAME not in sys.modules, "the silicon is loaded already"
    spec = spec_from_file_location(_NAME, path, loader=ExtensionFileLoader(_NAME, path))
    assert spec and spec.loader, path
    sys.modules[_NAME] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[_NAME])
