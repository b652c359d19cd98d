"""gpt2 doctor: what this machine has for gpt2kit, and the fix for what is missing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show what this machine has, and the fix for what is missing."""

    def __call__(self) -> int:
        """Print one line a finding."""
        from gpt2kit.jobs.doctor import doctor

        for finding in doctor():
            print(f"{finding.subject:<12} {finding.found}")
            if finding.fix:
                print(f"{'':<12} fix: {finding.fix}")
        return 0
