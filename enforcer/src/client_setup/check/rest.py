import sys
try:
    import requests
except ImportError:
    print("it has no requests")
    sys.exit(3)
answer = requests.get("https://bigquery.googleapis.com/bigquery/v2/projects", timeout=20)
print(answer.status_code, answer.text)
