"""The model on a Triton server: `clip_encoder`, `dapo_head`, and the ensemble `dapo` that clients ask.

contract.py     the models and their tensors, in one place
versions.py     which version of which model a pack is
config.py       config.pbtxt, from the contract
document.py     README.md, from the contract
*/model.py      thin wrappers of dapo/, run by Triton's Python backend
runtime.py      what both share: DLPack, the self-check, the files of a version
repository.py   a model repository on disk, and the files of a push
deploy.py       push to a running server
"""
