"""Callers and their permissions: a local OIDC issuer, Security Token Service, IAM's policies.

Without `--iam enforce` every caller has every permission; only a bad federated credential is
refused.
"""
