"""Who calls and what they may: GitHub's OIDC issuer, Security Token Service, IAM and its policies.

Without `--iam enforce` nothing here refuses anything but a bad federated credential.
"""
