"""Configuration of the documentation site; ``make docs`` builds it, without network."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.version import VERSION  # noqa: E402 - found by the line above

logging.getLogger("alembic").setLevel(logging.WARNING)
# numpydoc also reads the docstrings of what our modules import; those are not ours to correct.
warnings.filterwarnings("ignore", message="(?s).*site-packages")

project = "epvs-node"
author = "epvs-node project"
copyright = author  # noqa: A001 - Sphinx's name
release = VERSION

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
]
exclude_patterns = ["api/*/modules.rst"]
html_theme = "furo"
html_title = f"epvs-node {release}"
html_theme_options = {"source_directory": "docs/"}
html_copy_source = False

myst_heading_anchors = 5
myst_enable_extensions = ["colon_fence"]

suppress_warnings = ["ref.python"]  # classes of one name in two modules, in annotations
# Members are documented in place; numpydoc need not list them again.
numpydoc_show_class_members = False
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "ignore-module-all": True,  # each object on the page of the module that defines it
    "exclude-members": "metadata, registry, type_annotation_map, cache_ok, impl, model_config",
}
# What the rendered pages do not need: the site is built without PyTorch, and sooner.
autodoc_mock_imports = [
    *("art", "matplotlib", "onnx", "onnxruntime", "scipy", "skimage", "sklearn", "torch"),
]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False

# Pages of modules that have gone would stay.
shutil.rmtree(ROOT / "docs" / "api", ignore_errors=True)
apidoc_modules = [
    {
        "path": f"../{package}",
        "destination": f"api/{package}",
        "exclude_patterns": ["**/migrations/**", "**/__main__.py"],
        "separate_modules": False,
        "module_first": True,
        "implicit_namespaces": False,
        "automodule_options": {"members", "show-inheritance"},
    }
    for package in ("core", "db", "receiver", "worker", "node", "training")
]
