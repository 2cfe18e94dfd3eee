"""The model on a Triton server: `clip_encoder`, `dapo_head`, and the ensemble `dapo` that clients ask.

contract.py     the models and their tensors, in one place
versions.py     which version of which model a pack is
config.py       config.pbtxt, from the contract
document.py     README.md, from the contract
*/model.py      thin wrappers of dapo/, run by Triton's Python backend
runtime.py      what both share: DLPack, the self-check
encode.py, predict.py, weights.py, settings.py   their work
repository.py   a model repository on disk, and the files of a push
server.py, connection.py, tensors.py             a running server
deploy.py, probe.py                              a pack put on it, after a known answer
testing.py      a model server in this process, for tests
"""
