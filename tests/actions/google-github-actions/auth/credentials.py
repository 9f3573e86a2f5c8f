"""Write the file of google-github-actions/auth v3 and export its path; needs `id-token: write`."""

import json
import os
import sys
import tempfile

provider, account = os.environ["PROVIDER"], os.environ["ACCOUNT"]
url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
if not (provider and account and url):
    print("::error::stand-in for google-github-actions/auth: a provider, a service account and"
          " the permission 'id-token: write' are needed")  # fmt: skip
    sys.exit(1)
sts = os.environ["GHA_ENDPOINT_OVERRIDE_sts"]  # noqa: SIM112  (its name)
credentials = os.environ["GHA_ENDPOINT_OVERRIDE_iamcredentials"]  # noqa: SIM112  (its name)
accounts = f"{credentials}/projects/-/serviceAccounts"
token = os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
configuration = {
    "type": "external_account",
    "audience": f"//iam.googleapis.com/{provider}",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": f"{sts}/token",
    "service_account_impersonation_url": f"{accounts}/{account}:generateAccessToken",
    "credential_source": {
        "url": f"{url}&audience=https://iam.googleapis.com/{provider}",
        "headers": {"Authorization": f"Bearer {token}"},
        "format": {"type": "json", "subject_token_field_name": "value"},
    },
}
file, path = tempfile.mkstemp(
    prefix="gha-creds-", suffix=".json", dir=os.environ["GITHUB_WORKSPACE"]
)
with os.fdopen(file, "w") as out:
    json.dump(configuration, out)
with open(os.environ["GITHUB_ENV"], "a") as out:
    out.write(f"GOOGLE_APPLICATION_CREDENTIALS={path}\n")
