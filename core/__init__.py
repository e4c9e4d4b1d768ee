"""The engine: ledger, probe, worktrees, lifecycle and orchestrator. Knows no screen."""
