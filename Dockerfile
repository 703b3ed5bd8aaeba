# The page in a container:
#
#     docker build -t ovseg-demo . && docker run --rm -p 7860:7860 ovseg-demo
#
# With a GPU: docker run --gpus all. What is downloaded later stays with -v ovseg-cache:/home/user/.cache
# The default wheels of torch carry CUDA and make the image large; pip's own variables choose another index:
# docker build --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.12-slim

ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL
# A volume takes over who owns its folder: without one it would belong to root.
RUN useradd --create-home --uid 1000 user && install -d -o user -g user /home/user/.cache
WORKDIR /app

COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt

COPY app.py README.md LICENSE ./
COPY ovseg_demo ovseg_demo
COPY checkpoints checkpoints
COPY examples examples

USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=7860 GRADIO_ANALYTICS_ENABLED=False PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/healthz', timeout=5)"]
CMD ["python", "app.py"]
