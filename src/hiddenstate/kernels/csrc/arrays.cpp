#include "arrays.h"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstring>

namespace hiddenstate {

namespace {

struct Version {
  std::uint32_t major, minor;
};
struct Device {
  std::int32_t type, id;
};
struct Type {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  Type dtype;
  i64 *shape, *strides;
  std::uint64_t byte_offset;
};
struct Managed {
  Version version;
  void* manager_ctx;
  void (*deleter)(Managed*);
  std::uint64_t flags;
  Tensor tensor;
};
constexpr std::int32_t CPU = 1;
constexpr std::uint8_t INTEGER = 0, FLOATING = 2;

}  // namespace

struct ExchangeAPI {
  Version version;
  ExchangeAPI* previous;
  int (*allocate)(Tensor*, Managed**, void*, void (*)(void*, const char*, const char*));
  int (*managed_from)(void*, Managed**);
  int (*to_object)(Managed*, void**);
  int (*borrow)(void*, Tensor*);
  int (*stream)(std::int32_t, std::int32_t, void**);
};

namespace {

// The API of an object's type, or null. Types are few and immortal enough: each one that was seen
// is kept alive by a reference.
const ExchangeAPI* exchange_of(nb::handle object) {
  static std::vector<std::pair<PyTypeObject*, const ExchangeAPI*>> seen;
  PyTypeObject* type = Py_TYPE(object.ptr());
  for (const auto& [known, api] : seen) {
    if (known == type) return api;
  }
  const ExchangeAPI* api = nullptr;
  nb::object capsule =
      nb::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", nb::none());
  if (PyCapsule_CheckExact(capsule.ptr())) {
    api = static_cast<const ExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api == nullptr) throw nb::python_error();
    if (api->version.major != 1 || api->borrow == nullptr) api = nullptr;
  }
  Py_INCREF(type);
  seen.emplace_back(type, api);
  return api;
}

std::string list_of(const std::vector<i64>& shape) {
  std::string text = "[";
  for (std::size_t k = 0; k < shape.size(); k++) {
    if (k > 0) text += ", ";
    text += std::to_string(shape[k]);
  }
  text += "]";
  return text;
}

const char* type_name(char kind) {
  return kind == 'f' ? "float32" : kind == 'd' ? "float64" : kind == 'q' ? "int64" : "another type";
}

i64 width_of(char kind) { return kind == 'f' ? 4 : 8; }

// n elements of WIDTH bytes, `step` elements apart; they need not be aligned.
template <std::size_t WIDTH> void copy_row(const char* from, i64 step, i64 n, char* to) {
  for (i64 k = 0; k < n; k++) {
    std::memcpy(to + k * static_cast<i64>(WIDTH), from + k * step * static_cast<i64>(WIDTH), WIDTH);
  }
}

}  // namespace

void refuse(const std::string& message) { throw nb::value_error(message.c_str()); }

Input::Input(nb::handle object, const char* name) : name_(name) {
  exchange_ = exchange_of(object);
  if (exchange_ != nullptr) {
    Tensor tensor{};
    const bool borrowed = exchange_->borrow(object.ptr(), &tensor) == 0;
    if (!borrowed) PyErr_Clear();
    if (borrowed) {
      shape_.assign(tensor.shape, tensor.shape + tensor.ndim);
      strides_.assign(tensor.strides, tensor.strides + tensor.ndim);
    }
    // Tensors that are fake, sparse or wrapped by a transform either refuse or give a null pointer.
    const bool empty = std::find(shape_.begin(), shape_.end(), 0) != shape_.end();
    if (!borrowed || tensor.device.type != CPU || (tensor.data == nullptr && !empty)) {
      refuse(name_ + " is no array of numbers in the memory of the CPU.");
    }
    if (tensor.dtype.lanes == 1 && tensor.dtype.code == FLOATING) {
      kind_ = tensor.dtype.bits == 32 ? 'f' : tensor.dtype.bits == 64 ? 'd' : 0;
    } else if (tensor.dtype.lanes == 1 && tensor.dtype.code == INTEGER && tensor.dtype.bits == 64) {
      kind_ = 'q';
    }
    data_ = static_cast<char*>(tensor.data) + tensor.byte_offset;
    return;
  }
  if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    refuse(name_ + " is no array of numbers in the memory of the CPU.");
  }
  holds_buffer_ = true;
  std::string format = buffer_.format == nullptr ? "B" : buffer_.format;
  if (format[0] == '=') format.erase(0, 1);  // NumPy's mark of an array that is not aligned
  if (format == "f") kind_ = 'f';
  if (format == "d") kind_ = 'd';
  if ((format == "l" && buffer_.itemsize == 8) || format == "q") kind_ = 'q';
  data_ = buffer_.buf;
  bool whole = true;
  for (int axis = 0; axis < buffer_.ndim; axis++) {
    shape_.push_back(buffer_.shape[axis]);
    whole = whole && buffer_.strides[axis] % buffer_.itemsize == 0;
    strides_.push_back(buffer_.strides[axis] / buffer_.itemsize);
  }
  if (!whole) refuse(name_ + " has strides that are no whole numbers of its elements.");
}

Input::~Input() {
  if (holds_buffer_) PyBuffer_Release(&buffer_);
  give_block(copy_);
}

std::string Input::text() const { return std::string(type_name(kind_)).append(" ").append(list_of(shape_)); }

void Input::require(char kind, std::initializer_list<i64> shape) const {
  const std::vector<i64> expected(shape);
  if (kind_ == kind && shape_ == expected) return;
  refuse(name_ + " is " + text() + ", expected " + type_name(kind) + " " + list_of(expected) + ".");
}

void Input::make_dense(int dense) {
  const i64 width = width_of(kind_);
  bool fits = reinterpret_cast<std::uintptr_t>(data_) % static_cast<std::uintptr_t>(width) == 0;
  i64 expected = 1, count = 1;
  for (int axis = axes() - 1; axis >= 0; axis--) {
    if (axis >= axes() - dense && shape(axis) != 1) fits = fits && stride(axis) == expected;
    expected *= shape(axis);
    count *= shape(axis);
  }
  if (fits || count == 0) return;
  copy_ = take_block(static_cast<std::size_t>(count * width));
  const i64 row = shape_.empty() ? 1 : shape_.back(), step = shape_.empty() ? 0 : strides_.back();
  std::vector<i64> index(shape_.size(), 0);
  for (i64 k = 0; k < count; k += row) {
    i64 at = 0;
    for (std::size_t axis = 0; axis + 1 < index.size(); axis++) at += index[axis] * strides_[axis];
    const char* from = static_cast<const char*>(data_) + at * width;
    if (width == 4) copy_row<4>(from, step, row, copy_.data + k * 4);
    else copy_row<8>(from, step, row, copy_.data + k * 8);
    for (std::size_t axis = shape_.empty() ? 0 : index.size() - 1; axis-- > 0;) {
      if (++index[axis] < shape_[axis]) break;
      index[axis] = 0;
    }
  }
  data_ = copy_.data;
  expected = 1;
  for (std::size_t axis = shape_.size(); axis-- > 0;) {
    strides_[axis] = expected;
    expected *= shape_[axis];
  }
}

Output::Output(char kind, std::vector<i64> shape, std::vector<i64> strides)
    : kind_(kind), shape_(std::move(shape)), strides_(std::move(strides)) {
  const bool dense = strides_.empty();
  if (dense) strides_.resize(shape_.size());
  __int128 count = 1;
  for (std::size_t axis = shape_.size(); axis-- > 0;) {
    if (dense) strides_[axis] = static_cast<i64>(count);
    count *= shape_[axis];
  }
  if (!dense && !shape_.empty()) count = static_cast<__int128>(shape_[0]) * strides_[0];
  if (count > (static_cast<__int128>(1) << 44)) refuse("An array of " + list_of(shape_) + " is too large.");
  block_ = take_block(static_cast<std::size_t>(count) * static_cast<std::size_t>(width_of(kind_)));
}

nb::object Output::release(const ExchangeAPI* exchange) {
  struct Owner {
    Managed managed;
    std::vector<i64> shape, strides;
    Block block;
  };
  const auto bits = static_cast<std::uint8_t>(8 * width_of(kind_));
  if (exchange == nullptr) {
    auto* block = new Block(block_);
    block_ = {};
    nb::capsule owner(block, [](void* held) noexcept {
      give_block(*static_cast<Block*>(held));
      delete static_cast<Block*>(held);
    });
    const std::vector<std::size_t> sizes(shape_.begin(), shape_.end());
    const nb::dlpack::dtype type{FLOATING, bits, 1};
    return nb::cast(nb::ndarray<nb::numpy>(block->data, sizes.size(), sizes.data(), owner,
                                           strides_.data(), type));
  }
  auto* owner = new Owner{{}, shape_, strides_, block_};
  block_ = {};
  owner->managed = {{1, 1},
                    owner,
                    [](Managed* self) {
                      auto* held = static_cast<Owner*>(self->manager_ctx);
                      give_block(held->block);
                      delete held;
                    },
                    0,
                    {owner->block.data,
                     {CPU, 0},
                     static_cast<std::int32_t>(owner->shape.size()),
                     {FLOATING, bits, 1},
                     owner->shape.data(),
                     owner->strides.data(),
                     0}};
  void* object = nullptr;
  if (exchange->to_object(&owner->managed, &object) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(object));
}

}  // namespace hiddenstate
