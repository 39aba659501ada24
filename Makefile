.DEFAULT_GOAL := help
.PHONY: help setup run test check format plan apply hooks

help: ## show what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make the environment, linters included
	uv sync --group lint

run: ## build and test the project on the embedded warehouse
	uv run tributary run

plan: ## show what setup and apply would change on the Prefect server
	uv run tributary setup --plan
	uv run tributary deploy plan

apply: ## bring the Prefect server to targets.yml and schedules.yml
	uv run tributary setup
	uv run tributary deploy apply

test: ## run the test suite
	uv run pytest

check: setup ## lint, type-check, and hold the architecture to its arrows
	uv run --group lint ruff format --check .
	uv run --group lint ruff check .
	uv run --group lint basedpyright
	uv run --group lint lint-imports
	uv run --group lint sqlfluff lint dbt
	uv run --group lint check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci deployments/dbt_cloud/.gitlab-ci.yml deployments/ci/gitlab.yml
	uv run --group lint check-jsonschema --builtin-schema vendor.github-workflows deployments/ci/github.yml
	uv run --group lint check-jsonschema --builtin-schema vendor.compose-spec deployments/docker/compose.yaml deployments/docker/compose.workspace.yaml
	uv run --group lint hadolint deployments/docker/Dockerfile

format: setup ## format Python and SQL
	uv run --group lint ruff format .
	uv run --group lint ruff check --fix .
	uv run --group lint sqlfluff fix dbt

hooks: setup ## run `make check` before every commit
	uv run --group lint pre-commit install
