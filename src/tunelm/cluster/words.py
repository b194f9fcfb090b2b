"""Slurm's states and reasons for waiting, in words."""

from __future__ import annotations

from tunelm.cluster.slurm import JobState

WAITS = {
    "None": "it was not looked at yet",
    "Priority": "jobs of higher priority are before it",
    "Resources": "it is next, and waits until enough is free",
    "Dependency": "it waits for another job",
    "DependencyNeverSatisfied": "it waits for a job that failed: cancel it",
    "BeginTime": "it was put back into the queue, and Slurm lets it rest for about two minutes",
    "PartitionConfig": "it asks for more than a node of the partition has: cancel it",
    "PartitionTimeLimit": "it asks for more time than the partition gives: cancel it",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives: cancel it",
    "PartitionDown": "the partition takes no jobs at present",
    "PartitionInactive": "the partition is not active",
    "ReqNodeNotAvail": "nodes it needs are down or reserved",
    "NodeDown": "its node is down",
    "JobHeldUser": "you hold it back: scontrol release JOB",
    "JobHeldAdmin": "the administrators hold it back",
    "QOSMaxJobsPerUserLimit": "you have as many jobs running as you may",
    "QOSMaxGRESPerUser": "your other jobs have as many GPUs as you may use",
    "AssocGrpGRES": "your group has as many GPUs as it may use",
    "AssocGrpCpuLimit": "your group has as many cores as it may use",
    "AssocMaxJobsLimit": "your account has as many jobs running as it may",
    "InvalidAccount": "the account does not exist: give --account",
    "InvalidQOS": "the quality of service does not exist: give --qos",
    "Licenses": "a licence it needs is taken",
    "Reservation": "its reservation has not begun",
}
"""Why a job waits (squeue(1), "JOB REASON CODES")."""

STATES = {
    "PENDING": "waits",
    "RUNNING": "runs",
    "COMPLETING": "is ending",
    "COMPLETED": "done",
    "FAILED": "failed",
    "TIMEOUT": "stopped at its time limit",
    "CANCELLED": "cancelled",
    "PREEMPTED": "had to make room for another job",
    "NODE_FAIL": "its node died: submit again to go on",
    "OUT_OF_MEMORY": "needed more memory than it asked for: give a larger --mem",
    "SUSPENDED": "is suspended",
    "REQUEUED": "was put back into the queue",
}
OPEN = ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "CONFIGURING")


def in_words(job: JobState) -> str:
    """What a job does, and why it waits.

    An unknown reason stands as Slurm names it.
    """
    said = STATES.get(job.state, job.state.lower())
    if job.state == "PENDING":
        return f"{said}: {WAITS.get(job.reason, job.reason)}"
    return said
