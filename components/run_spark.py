"""Names of Spark jobs and a lake -> the lineage that each job wrote."""

from typing import Any

from components.subprogram import run_program


def run(jobs: list[str], lake: str, on: str = "here") -> dict[str, dict[str, Any]]:
    """Run `jobs` in order in one Spark session: {job: Lineage as a dict}. Raises the failing job's own sentence.

    `on`: "here" (this process), "submit" (pods, by spark-submit) or "operator" (pods, by Kubeflow's Spark operator).
    """
    records = run_program("spark_jobs", [*jobs, "--lake", lake, "--on", on])
    return {record["job"]: record for record in records if "job" in record}
