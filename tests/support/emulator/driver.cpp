// The functions of libcuda that torchfgsm/kernel/driver.py calls, with NVIDIA's own declarations:
// launches run on the CPU, in the emulator. A kernel's handle is its name.
#include <cuda.h>
#include <dlfcn.h>
#include <cstdlib>
#include <cstring>
#include <string>

namespace torchfgsm { struct Args; }
extern "C" int launch(const char*, unsigned, unsigned, unsigned, unsigned, size_t, const torchfgsm::Args*);

extern "C" {
int driver_version = 13000;
int refusals = 0;           // launches that are still to fail with CUDA_ERROR_INVALID_CONTEXT
int largest_shared = 49152; // bytes that a kernel may ask for
CUstream last_stream = nullptr;
unsigned last_attributes = 0;

// NVIDIA's bindings look every function up by this one.
CUresult cuGetProcAddress_v2(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult*) {
  *function = dlsym(dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW), name);
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuDriverGetVersion(int* version) { *version = driver_version; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == CUDA_ERROR_NOT_FOUND ? "named symbol not found" : "an error";
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) { *device = ordinal; return CUDA_SUCCESS; }
CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option*, void**, unsigned count,
                           CUlibraryOption*, void**, unsigned other) {
  if (count || other || memcmp(code, "\0cubin", 6)) return CUDA_ERROR_INVALID_VALUE;
  *library = (CUlibrary)code;
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary, const char* name) {
  if (strncmp(name, "torchfgsm::", 11)) return CUDA_ERROR_NOT_FOUND;
  *kernel = (CUkernel)strdup(name);
  return CUDA_SUCCESS;
}
CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel, CUdevice) {
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
  largest_shared = value;
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction kernel, void** parameters, void** extra) {
  if (refusals > 0) { --refusals; return CUDA_ERROR_INVALID_CONTEXT; }
  if (extra || config->gridDimZ != 1 || config->blockDimY != 1 || config->blockDimZ != 1) return CUDA_ERROR_INVALID_VALUE;
  if (config->sharedMemBytes > (unsigned)largest_shared) return CUDA_ERROR_INVALID_VALUE;
  unsigned cluster = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id != CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) return CUDA_ERROR_INVALID_VALUE;
    if (config->attrs[i].value.clusterDim.y != 1 || config->attrs[i].value.clusterDim.z != 1) return CUDA_ERROR_INVALID_VALUE;
    cluster = config->attrs[i].value.clusterDim.x;
  }
  last_stream = config->hStream;
  last_attributes = config->numAttrs;
  const int failed = launch((const char*)kernel, config->gridDimX, config->gridDimY, config->blockDimX, cluster,
                            config->sharedMemBytes, (const torchfgsm::Args*)parameters[0]);
  return failed ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
}
