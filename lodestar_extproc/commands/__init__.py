"""The commands of `lodestar-extproc`: one file each; `cli` puts them together."""
