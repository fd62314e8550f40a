// Interface of the part of Core Video that MViTCoreML uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
@_exported import CoreGraphics
import Foundation

public typealias OSType = UInt32
public typealias CVReturn = Int32
public typealias CFAllocator = Never
public typealias CVPixelBuffer = CVBuffer

public final class CVBuffer {}
public final class CVPixelBufferPool {}

// SDKs differ.
#if SENDABLE
extension CVBuffer: @unchecked Sendable {}
extension CVPixelBufferPool: @unchecked Sendable {}
#elseif NOT_SENDABLE
@available(*, unavailable) extension CVBuffer: @unchecked Sendable {}
@available(*, unavailable) extension CVPixelBufferPool: @unchecked Sendable {}
#endif

// Dispatch's own on Apple systems, and absent elsewhere.
public final class DispatchSerialQueue: @unchecked Sendable, SerialExecutor {
  public convenience init(label: String) { fatalError() }
  public func enqueue(_ job: consuming ExecutorJob) { fatalError() }
  public func asUnownedSerialExecutor() -> UnownedSerialExecutor { fatalError() }
}

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public static var readOnly: CVPixelBufferLockFlags { fatalError() }
}

public var kCVReturnSuccess: CVReturn { fatalError() }
public var kCVPixelFormatType_32BGRA: OSType { fatalError() }
public var kCVPixelFormatType_OneComponent8: OSType { fatalError() }
public let kCVPixelBufferPixelFormatTypeKey: CFString = ""
public let kCVPixelBufferWidthKey: CFString = ""
public let kCVPixelBufferHeightKey: CFString = ""
public let kCVPixelBufferIOSurfacePropertiesKey: CFString = ""
public let kCVPixelBufferPoolMinimumBufferCountKey: CFString = ""

public func CVPixelBufferGetWidth(_ buffer: CVPixelBuffer) -> Int { fatalError() }
public func CVPixelBufferGetHeight(_ buffer: CVPixelBuffer) -> Int { fatalError() }
public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { fatalError() }
public func CVPixelBufferGetPixelFormatType(_ buffer: CVPixelBuffer) -> OSType { fatalError() }
public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? {
  fatalError()
}
public func CVPixelBufferLockBaseAddress(
  _ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags
) -> CVReturn { fatalError() }
@discardableResult
public func CVPixelBufferUnlockBaseAddress(
  _ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags
) -> CVReturn { fatalError() }
public func CVPixelBufferPoolCreate(
  _ allocator: CFAllocator?, _ poolAttributes: CFDictionary?,
  _ pixelBufferAttributes: CFDictionary?,
  _ pool: UnsafeMutablePointer<CVPixelBufferPool?>
) -> CVReturn { fatalError() }
public func CVPixelBufferPoolCreatePixelBuffer(
  _ allocator: CFAllocator?, _ pool: CVPixelBufferPool,
  _ buffer: UnsafeMutablePointer<CVPixelBuffer?>
) -> CVReturn { fatalError() }
