"""The panel: draws snapshots of the engine and submits commands to it."""
