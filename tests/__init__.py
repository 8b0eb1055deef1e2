"Tests and benchmarks as a package: torch-fidelity installs another one of this name, which would hide a folder without this file."
