// Interface of the part of SwiftUI that the app uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
@_exported import CoreGraphics
@_exported import Foundation
@_exported import Observation
import UIKit
import UniformTypeIdentifiers

// MARK: Views, scenes and their builders

@MainActor @preconcurrency public protocol View {
  associatedtype Body: View
  @ViewBuilder var body: Body { get }
}

extension Never: View {
  public var body: Never { fatalError() }
}

/// A view without content of its own.
public protocol Primitive: View where Body == Never {}
extension Primitive {
  public var body: Never { fatalError() }
}

public struct EmptyView: Primitive {
  public init() {}
}
public struct TupleView<Content>: Primitive {}
extension Optional: View where Wrapped: View {
  public var body: Never { fatalError() }
}
public struct ConditionalContent<First: View, Second: View>: Primitive {}

@resultBuilder public enum ViewBuilder {
  public static func buildExpression<Content: View>(_ content: Content) -> Content { content }
  public static func buildBlock() -> EmptyView { fatalError() }
  public static func buildBlock<Content: View>(_ content: Content) -> Content { content }
  public static func buildBlock<each Content: View>(
    _ content: repeat each Content
  ) -> TupleView<(repeat each Content)> { fatalError() }
  public static func buildIf<Content: View>(_ content: Content?) -> Content? { content }
  public static func buildEither<First: View, Second: View>(
    first: First
  ) -> ConditionalContent<First, Second> { fatalError() }
  public static func buildEither<First: View, Second: View>(
    second: Second
  ) -> ConditionalContent<First, Second> { fatalError() }
}

@MainActor @preconcurrency public protocol Scene {}
@resultBuilder public enum SceneBuilder {
  public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content }
}
@MainActor @preconcurrency public protocol App {
  associatedtype Body: Scene
  @SceneBuilder var body: Body { get }
  init()
}
extension App {
  public static func main() { fatalError() }
}
public struct WindowGroup<Content: View>: Scene {
  public init(@ViewBuilder content: () -> Content) { fatalError() }
}

@MainActor @preconcurrency public protocol ToolbarContent {}
public struct TupleToolbar: ToolbarContent {}
@resultBuilder public enum ToolbarContentBuilder {
  public static func buildExpression<Content: ToolbarContent>(_ content: Content) -> Content {
    content
  }
  public static func buildBlock<each Content: ToolbarContent>(
    _ content: repeat each Content
  ) -> TupleToolbar { fatalError() }
}
public struct ToolbarItemPlacement: Sendable {
  public static let topBarLeading = ToolbarItemPlacement()
  public static let topBarTrailing = ToolbarItemPlacement()
  public static let confirmationAction = ToolbarItemPlacement()
}
public struct ToolbarItem<Content: View>: ToolbarContent {
  public init(placement: ToolbarItemPlacement, @ViewBuilder content: () -> Content) {
    fatalError()
  }
}

// MARK: State

@propertyWrapper public struct State<Value> {
  public init(wrappedValue value: Value) { fatalError() }
  public var wrappedValue: Value {
    get { fatalError() }
    nonmutating set { fatalError() }
  }
  public var projectedValue: Binding<Value> { fatalError() }
}
extension State where Value: ExpressibleByNilLiteral {
  public init() { fatalError() }
}
@propertyWrapper @dynamicMemberLookup public struct Binding<Value> {
  @preconcurrency public init(
    get: @escaping @isolated(any) @Sendable () -> Value,
    set: @escaping @isolated(any) @Sendable (Value) -> Void
  ) { fatalError() }
  public var wrappedValue: Value {
    get { fatalError() }
    nonmutating set { fatalError() }
  }
  public var projectedValue: Binding<Value> { self }
  public subscript<Subject>(
    dynamicMember keyPath: WritableKeyPath<Value, Subject>
  ) -> Binding<Subject> { fatalError() }
}
@propertyWrapper @dynamicMemberLookup public struct Bindable<Value: AnyObject> {
  public init(wrappedValue: Value) { fatalError() }
  public var wrappedValue: Value { fatalError() }
  public var projectedValue: Bindable<Value> { fatalError() }
  public subscript<Subject>(
    dynamicMember keyPath: ReferenceWritableKeyPath<Value, Subject>
  ) -> Binding<Subject> { fatalError() }
}
@propertyWrapper public struct ScaledMetric<Value: BinaryFloatingPoint> {
  public init(wrappedValue: Value) { fatalError() }
  public var wrappedValue: Value { fatalError() }
}
@propertyWrapper public struct Environment<Value> {
  public init(_ keyPath: KeyPath<EnvironmentValues, Value>) { fatalError() }
  public var wrappedValue: Value { fatalError() }
}
public enum ScenePhase: Comparable, Sendable {
  case background, inactive, active
}
public enum UserInterfaceSizeClass: Sendable {
  case compact, regular
}
@MainActor public struct OpenURLAction: Sendable {
  public func callAsFunction(_ url: URL) { fatalError() }
}
@MainActor public struct DismissAction: Sendable {
  public func callAsFunction() { fatalError() }
}
public struct EnvironmentValues {
  public var horizontalSizeClass: UserInterfaceSizeClass? { fatalError() }
  public var scenePhase: ScenePhase { fatalError() }
  public var openURL: OpenURLAction { fatalError() }
  public var dismiss: DismissAction { fatalError() }
}

// MARK: Geometry and styles

public struct HorizontalAlignment: Sendable {
  public static let leading = HorizontalAlignment()
  public static let center = HorizontalAlignment()
}
public struct VerticalAlignment: Sendable {
  public static let top = VerticalAlignment()
  public static let center = VerticalAlignment()
  public static let firstTextBaseline = VerticalAlignment()
}
public struct Alignment: Sendable {
  public static let center = Alignment()
  public static let leading = Alignment()
  public static let topLeading = Alignment()
}
public enum Edge: Sendable {
  public struct Set: OptionSet, Sendable {
    public let rawValue: Int8
    public init(rawValue: Int8) { self.rawValue = rawValue }
    public static let all = Set(rawValue: 15)
    public static let horizontal = Set(rawValue: 10)
    public static let vertical = Set(rawValue: 5)
  }
}
public enum ContentMode: Sendable {
  case fit, fill
}
public struct GeometryProxy {
  public var size: CGSize { fatalError() }
}

public protocol ShapeStyle: Sendable {}
public struct HierarchicalShapeStyle: ShapeStyle {}
public struct Color: ShapeStyle, Primitive, Sendable {
  public enum RGBColorSpace: Sendable {
    case sRGB
  }
  public init(
    _ colorSpace: RGBColorSpace = .sRGB, red: Double, green: Double, blue: Double,
    opacity: Double = 1
  ) { fatalError() }
  public nonisolated static var clear: Color { fatalError() }
}
extension ShapeStyle where Self == HierarchicalShapeStyle {
  public static var secondary: HierarchicalShapeStyle { fatalError() }
}
extension ShapeStyle where Self == Color {
  public static var red: Color { fatalError() }
  public static var green: Color { fatalError() }
}
public struct Font: Sendable {
  public static let headline = Font()
  public static let body = Font()
  public static let callout = Font()
  public static let caption = Font()
  public func monospacedDigit() -> Font { self }
}

public protocol Shape: Primitive {}
extension Shape {
  public func fill<S: ShapeStyle>(_ content: S) -> some View { self }
}
public struct Rectangle: Shape {
  public init() {}
}
public struct RoundedRectangle: Shape {
  public init(cornerRadius: CGFloat) {}
}

public protocol PickerStyle {}
public struct SegmentedPickerStyle: PickerStyle {}
public struct InlinePickerStyle: PickerStyle {}
extension PickerStyle where Self == SegmentedPickerStyle {
  public static var segmented: SegmentedPickerStyle { fatalError() }
}
extension PickerStyle where Self == InlinePickerStyle {
  public static var inline: InlinePickerStyle { fatalError() }
}
public protocol PrimitiveButtonStyle {}
public struct ButtonStyleChoice: PrimitiveButtonStyle {}
extension PrimitiveButtonStyle where Self == ButtonStyleChoice {
  public static var plain: ButtonStyleChoice { fatalError() }
  public static var bordered: ButtonStyleChoice { fatalError() }
  public static var borderedProminent: ButtonStyleChoice { fatalError() }
}

// MARK: Containers

public struct AnyLayout {
  public init<L: Layout>(_ layout: L) { fatalError() }
  @MainActor public func callAsFunction<Content: View>(
    @ViewBuilder _ content: () -> Content
  ) -> some View { content() }
}
public protocol Layout {}
public struct HStackLayout: Layout {
  public init(alignment: VerticalAlignment = .center, spacing: CGFloat? = nil) {}
}
public struct VStackLayout: Layout {
  public init(alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil) {}
}
public struct ZStack<Content: View>: Primitive {
  public init(alignment: Alignment = .center, @ViewBuilder content: () -> Content) {
    fatalError()
  }
}
public struct VStack<Content: View>: Primitive {
  public init(
    alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil,
    @ViewBuilder content: () -> Content
  ) { fatalError() }
}
public struct HStack<Content: View>: Primitive {
  public init(
    alignment: VerticalAlignment = .center, spacing: CGFloat? = nil,
    @ViewBuilder content: () -> Content
  ) { fatalError() }
}
public struct ScrollView<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) { fatalError() }
}
public struct NavigationStack<Content: View>: Primitive {
  public init(@ViewBuilder root: () -> Content) { fatalError() }
}
public struct GeometryReader<Content: View>: Primitive {
  public init(@ViewBuilder content: @escaping (GeometryProxy) -> Content) { fatalError() }
}
public struct Form<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) { fatalError() }
}
public struct List<Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content) { fatalError() }
}
public struct Section<Header: View, Content: View, Footer: View>: Primitive {
  public init(
    @ViewBuilder content: () -> Content, @ViewBuilder header: () -> Header,
    @ViewBuilder footer: () -> Footer
  ) { fatalError() }
}
extension Section where Header == EmptyView, Footer == EmptyView {
  public init(@ViewBuilder content: () -> Content) { fatalError() }
}
extension Section where Header == Text, Footer == EmptyView {
  public init(_ title: LocalizedStringKey, @ViewBuilder content: () -> Content) { fatalError() }
  @_disfavoredOverload
  public init<S: StringProtocol>(_ title: S, @ViewBuilder content: () -> Content) { fatalError() }
}
public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content>: Primitive {}
extension ForEach where Content: View, Data.Element: Identifiable, ID == Data.Element.ID {
  public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) {
    fatalError()
  }
}
extension ForEach where Content: View {
  public init(
    _ data: Data, id: KeyPath<Data.Element, ID>,
    @ViewBuilder content: @escaping (Data.Element) -> Content
  ) { fatalError() }
}
public struct Menu<Title: View, Content: View>: Primitive {
  public init(@ViewBuilder content: () -> Content, @ViewBuilder label: () -> Title) {
    fatalError()
  }
}
public struct ContentUnavailableView<Title: View, Description: View, Actions: View>: Primitive {
  public init(
    @ViewBuilder label: () -> Title, @ViewBuilder description: () -> Description,
    @ViewBuilder actions: () -> Actions
  ) { fatalError() }
}

// MARK: Controls

public struct LocalizedStringKey: Equatable, ExpressibleByStringInterpolation {
  public init(stringLiteral value: String) { fatalError() }
}
public struct Text: Primitive {
  public init(_ key: LocalizedStringKey) { fatalError() }
  @_disfavoredOverload public init<S: StringProtocol>(_ content: S) { fatalError() }
  public func font(_ font: Font?) -> Text { self }
  public func strikethrough(_ isActive: Bool = true) -> Text { self }
}
public struct Image: Primitive {
  public enum Interpolation: Sendable {
    case none, low, medium, high
  }
  public enum Orientation: UInt8, CaseIterable, Sendable {
    case up, upMirrored, down, downMirrored, left, leftMirrored, right, rightMirrored
  }
  public init(systemName: String) { fatalError() }
  public init(decorative image: CGImage, scale: CGFloat, orientation: Orientation = .up) { fatalError() }
  public func resizable() -> Image { self }
  public func interpolation(_ interpolation: Interpolation) -> Image { self }
}
public struct Label<Title: View, Icon: View>: Primitive {
  public init(@ViewBuilder title: () -> Title, @ViewBuilder icon: () -> Icon) { fatalError() }
}
extension Label where Title == Text, Icon == Image {
  public init(_ title: LocalizedStringKey, systemImage: String) { fatalError() }
  @_disfavoredOverload
  public init<S: StringProtocol>(_ title: S, systemImage: String) { fatalError() }
}
public struct Button<Title: View>: Primitive {
  @preconcurrency public init(
    action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Title
  ) { fatalError() }
}
extension Button where Title == Text {
  @preconcurrency public init(
    _ title: LocalizedStringKey, action: @escaping @MainActor () -> Void
  ) { fatalError() }
  @_disfavoredOverload @preconcurrency public init<S: StringProtocol>(
    _ title: S, action: @escaping @MainActor () -> Void
  ) { fatalError() }
}
public struct Picker<Title: View, Value: Hashable, Content: View>: Primitive {}
extension Picker where Title == Text {
  public init(
    _ title: LocalizedStringKey, selection: Binding<Value>, @ViewBuilder content: () -> Content
  ) { fatalError() }
}
public struct Slider: Primitive {
  public init<V: BinaryFloatingPoint>(value: Binding<V>, in bounds: ClosedRange<V>) {
    fatalError()
  }
}
public struct Spacer: Primitive {
  public init() {}
}
public struct Divider: Primitive {
  public init() {}
}
public struct ProgressView: Primitive {
  public init<V: View>(@ViewBuilder label: () -> V) { fatalError() }
  public init(_ title: LocalizedStringKey) { fatalError() }
  public init<V: BinaryFloatingPoint>(value: V?, total: V = 1.0) { fatalError() }
}

// MARK: UIKit

@MainActor @preconcurrency public protocol UIViewRepresentable: Primitive {
  associatedtype UIViewType: UIView
  typealias Context = UIViewRepresentableContext<Self>
  func makeUIView(context: Context) -> UIViewType
  func updateUIView(_ uiView: UIViewType, context: Context)
}
public struct UIViewRepresentableContext<Representable> {}
